"""Draw a few training images repeatedly while a detector trains."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
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

from dap.evaluation.evaluate import evenly_spread
from dap.images.image_files import read_image
from dap.pseudo_boxes.classifier import evaluating
from dap.registry import HOOKS


@HOOKS.register_module()
class DetectorPicturesHook(Hook):
    """Draw training images: left their boxes in the data set, right those that are detected now.

    In a config: ``default_hooks = dict(pictures=dict(type='dap.DetectorPicturesHook'))``. The same
    few images, spread evenly over the training set, are shown before the first iteration, every
    ``interval`` iterations and after the last one, not augmented and in their own size. They go
    to all backends of the visualizer, as ``train_img_<index in the data set>``: TensorBoard,
    ``vis_data/vis_image/`` of the local one. Only the main process draws. Training gives the same
    weights as without the hook, to the last bit. No training stops for want of a picture: an image
    that cannot be read, or a runner that has nothing to draw with, gives a warning.

    Args:
        num_images: How many images to show; 0 for none.
        interval: Iterations between pictures, whether the loop counts iterations or epochs.
        score_thr: Detections with a lower score are not shown.
        pipeline: How to prepare an image for the detector. Defaults to the pipeline of
            ``test_dataloader`` or ``val_dataloader``, and if the config has neither, to resizing to
            1333 x 800.

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
        self._last_step = -1

    def before_train(self, runner: Runner) -> None:
        """Choose the images and draw them."""
        if not self.num_images:
            return
        dataset = runner.train_dataloader.dataset
        first, *rest = self.pipeline or _test_pipeline(runner.cfg)
        self._loader, self._prepare = TRANSFORMS.build(first), Compose(rest)
        if reason := _why_not(runner, self._loader):
            runner.logger.warning(f"no pictures of training images: {reason}")
            return
        self._indices = evenly_spread(len(dataset), self.num_images)
        paths = (f"{_name(i)} = {dataset.get_data_info(i)['img_path']}" for i in self._indices)
        runner.logger.info(
            f"pictures every {self.interval} iterations, left the boxes of the data set, right the "
            f"detector's: {', '.join(paths)}"
        )
        self._draw(runner, runner.iter)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: DATA_BATCH = None,
        outputs: dict | None = None,
    ) -> None:
        """Draw the images every ``interval`` iterations."""
        if self.every_n_train_iters(runner, self.interval):
            self._draw(runner, runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        """Draw them once more with the trained detector."""
        if self._last_step != runner.iter:
            self._draw(runner, runner.iter)

    def _draw(self, runner: Runner, step: int) -> None:
        self._last_step = step
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


def _test_pipeline(config: Config) -> list[dict[str, Any]]:
    """The pipeline of the config's test or validation set."""
    for name in ("test_dataloader", "val_dataloader"):
        if config.get(name):
            return get_test_pipeline_cfg(Config({"test_dataloader": config[name]}))
    return [
        {"type": "LoadImageFromFile"},
        {"type": "mmdet.Resize", "scale": (1333, 800), "keep_ratio": True},
        {"type": "mmdet.PackDetInputs"},
    ]


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


def _why_not(runner: Runner, loader: Any) -> str:
    """Reason why a runner cannot draw its training images, with the cure; '' if it can."""
    visualizer, dataset = runner.visualizer, runner.train_dataloader.dataset
    if type(visualizer).add_datasample is Visualizer.add_datasample:
        return (
            f"visualizer {type(visualizer).__name__} draws no boxes; take mmdet's: "
            "visualizer=dict(type='DetLocalVisualizer', vis_backends=[…])"
        )
    if not isinstance(loader, LoadImageFromFile):
        return f"the pipeline begins with {type(loader).__name__}; begin it with LoadImageFromFile"
    # ConcatDataset has a list of metainfo where its data sets differ in it.
    known = hasattr(dataset, "get_data_info") and isinstance(dataset.metainfo, dict)
    if not known or len(dataset) == 0 or "img_path" not in dataset.get_data_info(0):
        return (
            f"training set {type(dataset).__name__} has no get_data_info with image files "
            "(img_path), or holds data sets of different metainfo (see ConcatDataset's ignore_keys)"
        )
    model = runner.model
    whole = not is_model_wrapper(model) or isinstance(model, DataParallel | DistributedDataParallel)
    if not whole or any(is_model_wrapper(part) for part in _unwrapped(model).modules()):
        return (  # one process has but a part of it, and would wait for the others for ever
            f"{type(model).__name__} needs all processes to predict; take MMDistributedDataParallel"
        )
    return ""
