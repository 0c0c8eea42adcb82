"""Adapt a detector's pipelines to pseudo boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.config import Config

from .code import Code
from .trees import plain

Transform = dict[str, Any]
# Short sides of the paper's pre-training (section 4.1); the longer side is at most 1333.
SHORT_SIDES = (96, 160, 320, 640)
_MULTI_SCALE = {
    "type": "RandomChoiceResize",
    "scales": Code(f"[(1333, s) for s in {SHORT_SIDES}]"),
    "keep_ratio": True,
}
DATASET = "_base_.train_dataloader.dataset"
SMALLEST_RATIO = SHORT_SIDES[0] / SHORT_SIDES[-1]
_RESIZES = ("Resize", "RandomResize", "RandomChoiceResize")
_CROPS = ("RandomCrop",)
# Transforms whose output size is fixed, or depends on more than a resize.
_COMPOSING = (
    *("Mosaic", "CachedMosaic", "MixUp", "CachedMixUp", "RandomCenterCropPad", "Expand"),
    *("MinIoURandomCrop", "RandomAffine", "CopyPaste", *_CROPS),
)
_LOAD_BOXES = {"type": "LoadAnnotations", "with_bbox": True}
_NEED_POLYGONS = ("InstaBoost",)
_NEED_MASKS = ("CopyPaste", *_NEED_POLYGONS)


class TrainPipeline(NamedTuple):
    """Training pipelines of a config.

    Attributes:
        inner: Transforms of a single image.
        path: Expression for them in an inheriting config: ``_base_.train_dataloader…``.
        outer: Transforms of several images (Mosaic, MixUp) if a ``MultiImageMixDataset`` wraps the
            data set, else None.
    """

    inner: list[Transform]
    path: str
    outer: list[Transform] | None


def train_pipeline(config: Config) -> TrainPipeline:
    """Find the training pipeline inside all wrappers of the data set.

    Raises:
        ValueError: If the data set has none.
    """
    chain = list(_datasets(config, "train_dataloader"))
    outer = [part for _, part in chain if "MultiImageMixDataset" in str(part.get("type"))]
    inner = [(path, part) for path, part in chain if part.get("pipeline") and part not in outer]
    if not inner:
        raise ValueError(f"{config.filename}: the training set has no pipeline; expected one")
    path, dataset = inner[-1]
    mixing = plain(outer[0].get("pipeline")) if outer else None
    return TrainPipeline(plain(dataset["pipeline"]), f"{path}.pipeline", mixing)


def test_pipeline(config: Config) -> list[Transform] | Code:
    """Find the validation or test pipeline, and make it load annotations after resizing.

    Returns:
        Expression for it in an inheriting config if nothing changes, else the transforms.

    Raises:
        ValueError: If the config has neither pipeline.
    """
    for name in ("val_dataloader", "test_dataloader"):
        for path, dataset in _datasets(config, name):
            if dataset.get("pipeline"):
                recipe = plain(dataset["pipeline"])
                steps = [s for s in boxes_alone(recipe) if "LoadAnnotations" not in s["type"]]
                changed = [*steps[:-1], _LOAD_BOXES, steps[-1]]
                return Code(f"{path}.pipeline") if changed == recipe else changed
    raise ValueError(f"{config.filename}: neither validation nor test has a pipeline")


def _datasets(config: Config, loader: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a data set and those inside its wrappers, each with its position in the config."""
    dataset = (config.get(loader) or {}).get("dataset")
    path = f"_base_.{loader}.dataset"
    while isinstance(dataset, Mapping):
        yield path, dataset
        several = dataset.get("datasets")
        dataset = several[0] if several else dataset.get("dataset")
        path += ".datasets[0]" if several else ".dataset"


def edited(
    name: str, path: str, original: Sequence[Transform], changed: Sequence[Transform]
) -> dict[str, Any]:
    """Write a pipeline as changes of that of ``_base_``, or in full if its length differs.

    Args:
        name: Name of the variable to assign.
        path: Expression for ``original`` in an inheriting config.
        original: Transforms of ``_base_``.
        changed: Transforms to write.

    Returns:
        Assignments, target → value; empty if nothing changes.
    """
    if list(original) == list(changed):
        return {}
    if len(original) != len(changed):
        return {name: list(changed)}
    pairs = enumerate(zip(original, changed, strict=True))
    others = {f"{name}[{number}]": new for number, (old, new) in pairs if old != new}
    return {name: Code(f"[*{path}]"), **others}


def boxes_alone(pipeline: Sequence[Transform]) -> list[Transform]:
    """Remove masks and segmentation maps from a pipeline."""
    kept = []
    for step in pipeline:
        if step["type"] in _NEED_MASKS:
            continue
        if "LoadAnnotations" in step["type"]:
            step = _LOAD_BOXES
        kept.append({key: value for key, value in step.items() if key != "by_mask"})
    return kept


def masks_as_bitmaps(pipeline: Sequence[Transform]) -> list[Transform]:
    """Make a pipeline load masks as bitmaps, since those of a store are not polygons."""
    return [
        {**_LOAD_BOXES, "with_mask": True} if "LoadAnnotations" in step["type"] else step
        for step in pipeline
        if step["type"] not in _NEED_POLYGONS
    ]


def multi_scale(pipeline: Sequence[Transform]) -> tuple[list[Transform], str]:
    """Add the paper's multi-scale training to a detector's pipeline.

    Resizing is replaced by a random choice of the paper's four short sides. If a crop, a mosaic or
    the network fixes the size, the pipeline is kept, and the lowest ratio of a random resize
    becomes that of the paper, 96 / 640.

    Args:
        pipeline: The transforms.

    Returns:
        The changed transforms, and a phrase that describes the change.
    """
    composing = [step["type"] for step in pipeline if step["type"] in _COMPOSING]
    fixed = any(not step.get("keep_ratio", True) for step in pipeline if _is_resize(step))
    if not composing and not fixed:
        return _with_short_sides(pipeline)
    lowered = [_lowered(step) for step in pipeline]
    kept = f"the recipe's pipeline ({', '.join(dict.fromkeys(composing)) or 'fixed size'})"
    if lowered == list(pipeline):
        return lowered, kept
    return lowered, f"{kept}, images resized down to {SMALLEST_RATIO:g}"


def _with_short_sides(pipeline: Sequence[Transform]) -> tuple[list[Transform], str]:
    steps: list[Transform] = []
    for step in pipeline:
        if not _is_resize(step):
            steps.append(step)
        elif _MULTI_SCALE not in steps:
            steps.append(_MULTI_SCALE)
    if _MULTI_SCALE not in steps:
        return steps, "the recipe's pipeline, which resizes nothing"
    return steps, f"short sides {', '.join(map(str, SHORT_SIDES))}, as in the paper"


def _is_resize(step: Mapping[str, Any]) -> bool:
    """Whether a transform resizes, or chooses between resizes and crops, as DETR's do."""
    if step["type"] != "RandomChoice":
        return step["type"] in _RESIZES
    inner = {transform["type"] for branch in step["transforms"] for transform in branch}
    return bool(inner) and inner <= {*_RESIZES, *_CROPS}


def _lowered(step: Transform) -> Transform:
    """Lower the smallest ratio of a random resize to that of the paper."""
    ratios = step.get("ratio_range")
    if step["type"] != "RandomResize" or not ratios or ratios[0] <= SMALLEST_RATIO:
        return step
    return {**step, "ratio_range": (SMALLEST_RATIO, ratios[1])}
