"""A trained detector with its test pipeline, for images whose classes are known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from dap.checkpoint import load_weights, require_finite

MIN_SCORE = 0.001  # of a detection that is kept


class Detections(NamedTuple):
    """Detections of an image.

    Attributes:
        boxes: xyxy, half-open, in pixels of the original image, float64, shape (N, 4).
        scores: In [0, 1], shape (N,).
        labels: Labels of the store, -1 for categories that it lacks, shape (N,).
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class BoxDetector:
    """Detects objects of the categories of a store.

    Images are processed by the config's test pipeline, without its ``LoadImageFromFile``. Since the
    class of each image is known, detections with low scores are kept: the config's ``score_thr`` is
    lowered to .001, and its limit of detections per image raised to 1000.

    Args:
        config: Config of the detector, with ``test_dataloader`` or ``val_dataloader``.
        checkpoint: Weights of the detector: file or URL.
        categories: COCO categories of the store, in the order of its labels.
        device: Device to compute on.

    Raises:
        ValueError: If the config has no test pipeline that loads a file, the checkpoint does not
            fit the model, or the store has none of its classes.
    """

    def __init__(
        self,
        config: Config,
        checkpoint: str,
        categories: Sequence[dict[str, Any]],
        device: torch.device,
    ) -> None:
        init_default_scope(config.get("default_scope", "mmdet"))
        self._pipeline = _pipeline_behind_loading(config)
        weights, meta = load_weights(checkpoint)
        require_finite(weights, checkpoint)
        model_cfg = config.model.copy()
        _lower_limits(model_cfg.get("test_cfg"))
        self._test_cfg = model_cfg.get("test_cfg")
        model = _build(model_cfg, weights, checkpoint, str(config.filename))
        self.model: Any = model.to(device).eval()
        self._labels = _labels_of(meta, categories, checkpoint)
        self._digest = _weights_sha256(weights)

    def described(self) -> dict[str, Any]:
        """Everything that decides the detections, as JSON."""
        pipeline = [repr(transform) for transform in self._pipeline.transforms]
        return {
            "type": type(self.model).__name__,
            "weights_sha256": self._digest,
            "model_sha256": hashlib.sha256(repr(self.model).encode()).hexdigest(),
            "test_cfg": _as_json(self._test_cfg),
            "pipeline": pipeline,
        }

    @torch.inference_mode()
    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """Detect objects in a batch of images.

        Args:
            images: BGR, uint8, each of shape (3, H, W).

        Raises:
            FloatingPointError: If a box or score is not finite.
        """
        samples = [self._packed(image) for image in images]
        predicted = self.model.test_step(pseudo_collate(samples))
        return [self._detections(sample.pred_instances) for sample in predicted]

    def _packed(self, image: Tensor) -> dict[str, Any]:
        """Process an image by the test pipeline."""
        bgr = np.ascontiguousarray(image.numpy().transpose(1, 2, 0))
        size_hw = bgr.shape[:2]
        loaded = {"img": bgr, "img_path": "", "img_id": 0, "instances": []}
        sizes = {"img_shape": size_hw, "ori_shape": size_hw}
        packed: dict[str, Any] = self._pipeline({**loaded, **sizes})
        return packed

    def _detections(self, instances: Any) -> Detections:
        boxes = instances.bboxes.double().cpu().numpy()
        scores = instances.scores.double().cpu().numpy()
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise FloatingPointError("a box or a score of the detector is NaN or infinite")
        return Detections(boxes, scores, self._labels[instances.labels.cpu().numpy()])


def _as_json(options: Any) -> Any:
    """Options of a config as JSON, independent of their order."""
    return json.loads(json.dumps(options, sort_keys=True, default=repr))


def _pipeline_behind_loading(config: Config) -> Compose:
    """The config's test pipeline without its first transform, which loads the file."""
    loader = config.get("test_dataloader") or config.get("val_dataloader")
    if not loader:
        raise ValueError(
            f"config {config.filename}: no test_dataloader or val_dataloader; expected one whose "
            "pipeline resizes images for the detector. Add one"
        )
    first, *rest = get_test_pipeline_cfg(Config({"test_dataloader": loader}))
    name = str(getattr(first["type"], "__name__", first["type"]))
    if not name.endswith("LoadImageFromFile"):
        raise ValueError(
            f"config {config.filename}: its test pipeline begins with {name}; expected "
            "LoadImageFromFile. Put that transform first"
        )
    return Compose(rest)


def _build(model_cfg: Any, weights: dict[str, Tensor], checkpoint: str, config: str) -> nn.Module:
    """Build the model and load weights that must match it exactly."""
    model: nn.Module = revert_sync_batchnorm(MODELS.build(model_cfg))
    expected = model.state_dict()
    missing = expected.keys() - weights.keys()
    shapes = [n for n, v in weights.items() if n in expected and v.shape != expected[n].shape]
    unexpected = weights.keys() - expected.keys()
    for fault, names in (("lacks", missing), ("has another shape of", shapes),
                        ("has beyond the model", unexpected)):  # fmt: skip
        if names:
            raise ValueError(
                f"{checkpoint} {fault} {min(names)}, one of {len(names)} such tensors; expected "
                f"the weights of the model of {config}. Give the config that trained it"
            )
    model.load_state_dict(weights)
    return model


def _lower_limits(test_cfg: Any) -> None:
    """Keep detections with low scores: those of the image's class may be among them."""
    if not isinstance(test_cfg, dict):
        return
    if "score_thr" in test_cfg:
        test_cfg["score_thr"] = min(test_cfg["score_thr"], MIN_SCORE)
        test_cfg["max_per_img"] = max(test_cfg.get("max_per_img", 0), 1000)
    for value in test_cfg.values():
        _lower_limits(value)


def _labels_of(
    meta: dict[str, Any], categories: Sequence[dict[str, Any]], checkpoint: str
) -> np.ndarray:
    """Label in the store of each class of the detector, -1 if the store lacks it."""
    classes = (meta.get("dataset_meta") or {}).get("classes")
    if not classes:
        raise ValueError(
            f"{checkpoint}: no class names in its meta; expected those of the data set that the "
            "detector was trained on, as MMEngine writes them. Give the checkpoint of the training"
        )
    labels = {category["name"]: label for label, category in enumerate(categories)}
    store_labels = np.array([labels.get(name, -1) for name in classes])
    if (store_labels < 0).all():
        raise ValueError(
            f"{checkpoint}: none of its {len(classes)} classes ({classes[0]!r}, …) is one of the "
            f"{len(labels)} categories of the store ({categories[0]['name']!r}, …). Give a "
            "detector that was trained on boxes of these categories"
        )
    return store_labels


def _weights_sha256(weights: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
