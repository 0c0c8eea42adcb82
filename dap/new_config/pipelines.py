"""A detector's own pipelines, for boxes of single objects in photographs."""

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
# The size of what comes out of these is fixed, or follows from more than a resize.
_COMPOSING = (
    *("Mosaic", "CachedMosaic", "MixUp", "CachedMixUp", "RandomCenterCropPad", "Expand"),
    *("MinIoURandomCrop", "RandomAffine", "CopyPaste", *_CROPS),
)
_LOAD_BOXES = {"type": "LoadAnnotations", "with_bbox": True}
_NEED_POLYGONS = ("InstaBoost",)
_NEED_MASKS = ("CopyPaste", *_NEED_POLYGONS)


class TrainPipeline(NamedTuple):
    """How a config prepares its training images.

    Attributes:
        inner: What is done to each image.
        path: Where that stands, as a config names it: ``_base_.train_dataloader…``.
        outer: What is done to several (Mosaic, MixUp), where a ``MultiImageMixDataset`` wraps the
            data set; else None.
    """

    inner: list[Transform]
    path: str
    outer: list[Transform] | None


def train_pipeline(config: Config) -> TrainPipeline:
    """Find the training pipeline below all wrappers of the data set.

    Raises:
        ValueError: If the data set has none.
    """
    chain = list(_datasets(config, "train_dataloader"))
    outer = [own for _, own in chain if "MultiImageMixDataset" in str(own.get("type"))]
    named = [(path, own) for path, own in chain if own.get("pipeline") and own not in outer]
    if not named:
        raise ValueError(f"{config.filename}: the training set has no pipeline; expected one")
    path, dataset = named[-1]
    mixing = plain(outer[0].get("pipeline")) if outer else None
    return TrainPipeline(plain(dataset["pipeline"]), f"{path}.pipeline", mixing)


def test_pipeline(config: Config) -> list[Transform] | Code:
    """Find the pipeline of validation or test, its annotations loaded behind the resizing.

    Returns:
        Its place in the config if nothing is to be changed, else the steps.

    Raises:
        ValueError: If the config has neither.
    """
    for name in ("val_dataloader", "test_dataloader"):
        for path, dataset in _datasets(config, name):
            if dataset.get("pipeline"):
                own = plain(dataset["pipeline"])
                steps = [step for step in boxes_alone(own) if "LoadAnnotations" not in step["type"]]
                wanted = [*steps[:-1], _LOAD_BOXES, steps[-1]]
                return Code(f"{path}.pipeline") if wanted == own else wanted
    raise ValueError(f"{config.filename}: neither validation nor test has a pipeline")


def _datasets(config: Config, loader: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a data set and those within its wrappers, each with its place in the config."""
    dataset = (config.get(loader) or {}).get("dataset")
    path = f"_base_.{loader}.dataset"
    while isinstance(dataset, Mapping):
        yield path, dataset
        several = dataset.get("datasets")
        dataset = several[0] if several else dataset.get("dataset")
        path += ".datasets[0]" if several else ".dataset"


def edited(
    name: str, path: str, own: Sequence[Transform], changed: Sequence[Transform]
) -> dict[str, Any]:
    """Write a pipeline as that of ``_base_`` with other steps, or in full if their number differs.

    Args:
        name: Of the variable to write it to.
        path: Where ``own`` stands, as a config names it.
        own: The steps as they are.
        changed: The steps as they are to be.

    Returns:
        Assignments, target → value; none if nothing is changed.
    """
    if list(own) == list(changed):
        return {}
    if len(own) != len(changed):
        return {name: list(changed)}
    pairs = enumerate(zip(own, changed, strict=True))
    others = {f"{name}[{number}]": new for number, (old, new) in pairs if old != new}
    return {name: Code(f"[*{path}]"), **others}


def boxes_alone(pipeline: Sequence[Transform]) -> list[Transform]:
    """Take masks and segmentation out of a pipeline."""
    kept = []
    for step in pipeline:
        if step["type"] in _NEED_MASKS:
            continue
        if "LoadAnnotations" in step["type"]:
            step = _LOAD_BOXES
        kept.append({key: value for key, value in step.items() if key != "by_mask"})
    return kept


def masks_as_bitmaps(pipeline: Sequence[Transform]) -> list[Transform]:
    """Let a pipeline load the masks of a store, which are no polygons, and no segmentation."""
    return [
        {**_LOAD_BOXES, "with_mask": True} if "LoadAnnotations" in step["type"] else step
        for step in pipeline
        if step["type"] not in _NEED_POLYGONS
    ]


def multi_scale(pipeline: Sequence[Transform]) -> tuple[list[Transform], str]:
    """Bring the paper's multi-scale training into a detector's own pipeline.

    A resizing becomes a choice of the paper's four short sides. Where the size is fixed by a crop,
    a mosaic or the network, the pipeline stays, and a random resizing in it may go down to the same
    share, 96 / 640.

    Args:
        pipeline: The steps.

    Returns:
        The changed steps, and what was done, a phrase.
    """
    composing = [step["type"] for step in pipeline if step["type"] in _COMPOSING]
    fixed = any(not step.get("keep_ratio", True) for step in pipeline if _is_resize(step))
    if not composing and not fixed:
        return _with_short_sides(pipeline)
    lowered = [_lowered(step) for step in pipeline]
    own = f"own pipeline ({', '.join(dict.fromkeys(composing)) or 'fixed size'})"
    if lowered == list(pipeline):
        return lowered, own
    return lowered, f"{own}, images resized down to {SMALLEST_RATIO:g}"


def _with_short_sides(pipeline: Sequence[Transform]) -> tuple[list[Transform], str]:
    steps: list[Transform] = []
    for step in pipeline:
        if not _is_resize(step):
            steps.append(step)
        elif _MULTI_SCALE not in steps:
            steps.append(_MULTI_SCALE)
    if _MULTI_SCALE not in steps:
        return steps, "own pipeline, which resizes nothing"
    return steps, f"short sides {', '.join(map(str, SHORT_SIDES))}, as in the paper"


def _is_resize(step: Mapping[str, Any]) -> bool:
    """Say whether a step resizes, or chooses between steps that resize and crop, as DETR's do."""
    if step["type"] != "RandomChoice":
        return step["type"] in _RESIZES
    inside = [one["type"] for branch in step["transforms"] for one in branch]
    return bool(inside) and set(inside) <= {*_RESIZES, *_CROPS}


def _lowered(step: Transform) -> Transform:
    """Let a random resizing go down to the paper's smallest share."""
    ratios = step.get("ratio_range")
    if step["type"] != "RandomResize" or not ratios or ratios[0] <= SMALLEST_RATIO:
        return step
    return {**step, "ratio_range": (SMALLEST_RATIO, ratios[1])}
