"""A few training images, again and again, while a detector trains."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile, RandomChoiceResize, RandomResize, Resize
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.model import is_model_wrapper
from mmengine.registry import TRANSFORMS
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from dap.pseudo_boxes.classifier import evaluating
from dap.pseudo_boxes.image_files import read_image
from dap.registry import HOOKS


@HOOKS.register_module()
class DetectorPicturesHook(Hook):
    """Show training images: left their boxes in the data set, right those that are detected now.

    In a config: ``default_hooks = dict(pictures=dict(type='dap.DetectorPicturesHook'))``. The same
    few images, spread evenly over the training set, are shown before the first iteration, every
    ``interval`` iterations and after the last one, not augmented and in their own size. They go
    to all backends of the visualizer, as ``train_img_<index in the data set>``: TensorBoard,
    ``vis_data/vis_image/`` of the local one. The main process draws alone, and training goes on as
    without the hook, to the last bit. An image that cannot be read is left out with a warning.

    Args:
        num_images: How many images to show; 0 for none.
        interval: Iterations between pictures, whether the loop counts iterations or epochs.
        score_thr: Detections with a lower score are not shown.
        pipeline: How to prepare an image for the detector. Defaults to the pipeline of
            ``test_dataloader`` or ``val_dataloader``, and if the config has neither, to resizing to
            the largest scale of the training pipeline.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        num_images: int = 4,
        interval: int = 500,
        score_thr: float = 0.3,
        pipeline: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        for name, value, least in (("num_images", num_images, 0), ("interval", interval, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(
                    f"DetectorPicturesHook: {name}={value!r}; expected an integer from {least}"
                )
        if not 0 <= score_thr <= 1:
            raise ValueError(
                f"DetectorPicturesHook: score_thr={score_thr!r}; expected a score from 0 to 1"
            )
        self.num_images, self.interval, self.score_thr = num_images, interval, score_thr
        self.pipeline = pipeline
        self._indices: list[int] = []
        self._shown_at = -1

    def before_train(self, runner: Runner) -> None:
        """Choose the images and show them.

        Raises:
            ValueError: If visualizer, data set, pipeline or model are of no use for this.
        """
        if not self.num_images:
            return
        dataset = runner.train_dataloader.dataset
        _check_visualizer(runner.visualizer)
        _check_dataset(dataset)
        _check_model(runner.model)
        self._loader, self._prepare = _test_transforms(
            self.pipeline or _test_pipeline(runner.cfg) or _plain_pipeline(dataset)
        )
        self._indices = evenly_spread(len(dataset), self.num_images)
        paths = (f"{_name(i)} = {dataset.get_data_info(i)['img_path']}" for i in self._indices)
        runner.logger.info(
            f"pictures every {self.interval} iterations, left the boxes of the data set, right the "
            f"detector's: {', '.join(paths)}"
        )
        self._show(runner, runner.iter)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: dict | None = None,
    ) -> None:
        """Show the images every ``interval`` iterations."""
        if self.every_n_train_iters(runner, self.interval):
            self._show(runner, runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        """Show them as the trained detector sees them, if that has not been done."""
        if self._shown_at != runner.iter:
            self._show(runner, runner.iter)

    def _show(self, runner: Runner, step: int) -> None:
        self._shown_at = step
        if not self._indices or not is_main_process():
            return
        dataset = runner.train_dataloader.dataset
        model = _unwrapped(runner.model)
        with (
            evaluating(model),
            torch.no_grad(),
            _same_random_state(),
            _classes_of(dataset, runner.visualizer),
            warnings.catch_warnings(),
        ):
            # Boxes may end where the image does, which MMEngine warns of.
            warnings.filterwarnings("ignore", ".* is out of bounds", UserWarning)
            for index in self._indices:
                info = dataset.get_data_info(index)
                try:
                    image = read_image(info["img_path"], self._loader)
                except (OSError, ValueError, MemoryError) as error:
                    runner.logger.warning(
                        f"{_name(index)} is left out of the pictures: {info['img_path']} cannot "
                        f"be read ({type(error).__name__}: {error})"
                    )
                    continue
                bgr = np.ascontiguousarray(image.numpy().transpose(1, 2, 0))
                sample = self._detect(model, bgr, info)
                sample.gt_instances = _boxes(info)
                runner.visualizer.add_datasample(
                    _name(index), bgr[..., ::-1], sample, pred_score_thr=self.score_thr, step=step
                )

    def _detect(self, model: Any, bgr: np.ndarray, info: dict[str, Any]) -> DetDataSample:
        """Do what mmdet's ``inference_detector`` does, without its need of a model's config."""
        known = {key: value for key, value in info.items() if key != "instances"}
        size_hw = bgr.shape[:2]
        image = bgr.astype(np.float32) if self._loader.to_float32 else bgr
        packed = self._prepare({**known, "img": image, "img_shape": size_hw, "ori_shape": size_hw})
        return model.test_step({key: [value] for key, value in packed.items()})[0]


def evenly_spread(length: int, count: int) -> list[int]:
    """Choose indices from the middle of as many equal parts of a sequence."""
    count = min(length, count)
    return [(2 * part + 1) * length // (2 * count) for part in range(count)]


def _name(index: int) -> str:
    return f"train_img_{index}"


def _unwrapped(model: Any) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _boxes(info: dict[str, Any]) -> InstanceData:
    """The boxes of an image to train on, xyxy in its own pixels, as mmdet's instances."""
    boxes = [box for box in info.get("instances", ()) if not box["ignore_flag"]]
    return InstanceData(
        bboxes=torch.tensor([box["bbox"] for box in boxes], dtype=torch.float).reshape(-1, 4),
        labels=torch.tensor([box["bbox_label"] for box in boxes], dtype=torch.long),
    )


def _test_pipeline(config: Config) -> list[dict[str, Any]] | None:
    """The pipeline of the config's test or validation set."""
    for name in ("test_dataloader", "val_dataloader"):
        if config.get(name):
            return get_test_pipeline_cfg(Config({"test_dataloader": config[name]}))
    return None


def _plain_pipeline(dataset: Any) -> list[Any]:
    """Resize to the largest scale that is trained on: its detections are the best."""
    transforms = list(_transforms(dataset))
    loaders = [one for one in transforms if isinstance(one, LoadImageFromFile)]
    scales = [scale for one in transforms for scale in _scales(one)]
    largest = {"scale": tuple(max(scales, key=sorted))} if scales else {"scale_factor": 1.0}
    return [
        loaders[0] if loaders else {"type": "mmdet.LoadImageFromFile"},
        {"type": "mmdet.Resize", "keep_ratio": True, **largest},
        {"type": "mmdet.PackDetInputs"},
    ]


def _transforms(holder: Any) -> Iterator[Any]:
    """All that a data set, a pipeline or a transform holds, those that they wrap included."""
    if isinstance(holder, list | tuple):
        for one in holder:
            yield from _transforms(one)
        return
    yield holder
    for name in ("pipeline", "transforms", "dataset", "datasets"):
        yield from _transforms(getattr(holder, name, ()))


def _scales(transform: Any) -> list[Sequence[int]]:
    """The sizes that a transform resizes to, longer and shorter side in any order."""
    if isinstance(transform, RandomChoiceResize):
        found = transform.scales
    elif isinstance(transform, Resize | RandomResize):
        found = transform.scale
    else:
        return []
    several = isinstance(found, list) and isinstance(found[0], list | tuple)
    return [one for one in (found if several else [found]) if isinstance(one, list | tuple)]


def _test_transforms(pipeline: Sequence[Any]) -> tuple[LoadImageFromFile, Compose]:
    """Build what opens an image, and what comes after."""
    first, *rest = pipeline
    loader = TRANSFORMS.build(first) if isinstance(first, dict) else first
    if not isinstance(loader, LoadImageFromFile):
        raise ValueError(
            f"DetectorPicturesHook: the pipeline begins with {type(loader).__name__}; expected "
            "LoadImageFromFile. Give another one as the hook's argument pipeline"
        )
    return loader, Compose(rest)


@contextmanager
def _same_random_state() -> Iterator[None]:
    """Give all generators of random numbers their states back afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what mmdet draws from
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def _classes_of(dataset: Any, visualizer: Visualizer) -> Iterator[None]:
    """Let labels be those of a data set; the visualizer has those of the validation set."""
    before, visualizer.dataset_meta = visualizer.dataset_meta, dataset.metainfo
    try:
        yield
    finally:
        visualizer.dataset_meta = before


def _check_visualizer(visualizer: Visualizer) -> None:
    if type(visualizer).add_datasample is Visualizer.add_datasample:
        raise ValueError(
            f"DetectorPicturesHook: visualizer {type(visualizer).__name__} draws no boxes; "
            "expected mmdet's: visualizer=dict(type='DetLocalVisualizer', vis_backends=[…])"
        )


def _check_dataset(dataset: Any) -> None:
    name = type(dataset).__name__
    if not hasattr(dataset, "get_data_info") or not hasattr(dataset, "metainfo"):
        raise ValueError(
            f"DetectorPicturesHook: training set {name} hides what it holds; expected "
            "get_data_info and metainfo, as the data sets of mmdet and the wrappers of MMEngine "
            "have them. Wrap it in one of those, or set num_images=0"
        )
    if not isinstance(dataset.metainfo, dict):
        raise ValueError(
            f"DetectorPicturesHook: training set {name} holds data sets of different metainfo; "
            "expected the same classes in all. Let ConcatDataset ignore what may differ "
            "(ignore_keys=[…]), or set num_images=0"
        )
    if len(dataset) == 0 or "img_path" not in dataset.get_data_info(0):
        raise ValueError(
            f"DetectorPicturesHook: training set {name} has no image files (img_path) to show. "
            "Set num_images=0"
        )


def _check_model(model: nn.Module) -> None:
    """Refuse a model of which one process has but a part: alone, it would wait for ever."""
    whole = not is_model_wrapper(model) or isinstance(model, DataParallel | DistributedDataParallel)
    if not whole or any(is_model_wrapper(part) for part in _unwrapped(model).modules()):
        raise ValueError(
            f"DetectorPicturesHook: {type(model).__name__} needs all processes to predict; "
            "expected MMDistributedDataParallel, or no wrapper. Set num_images=0"
        )
