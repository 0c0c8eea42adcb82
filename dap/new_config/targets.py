"""Read the detection set of a fine-tuning as COCO files for training and validation."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import print_log

from dap.datasets.detection_data import (
    TEST,
    TRAIN,
    VAL,
    DetectionSplit,
    read_detection_data,
    write_split,
)

_HELD_OUT_STEP = 5  # every fifth image is held out if a set has no validation split


class CocoFiles(NamedTuple):
    """A COCO file, and the folder of its images, ending with a slash."""

    annotations: str
    images: str


class Target(NamedTuple):
    """A detection set.

    Attributes:
        classes: Names of the categories in the order of both files.
        train: Training set.
        val: Validation set.
        size: Number of training images.
        has_masks: Whether all objects of both sets have a mask.
        has_rle: Whether a mask of the training set is run-length encoded.
    """

    classes: tuple[str, ...]
    train: CocoFiles
    val: CocoFiles
    size: int
    has_masks: bool
    has_rle: bool


def read_target(source: str, val: str | None, images: str | None, out: Path) -> Target:
    """Read a detection set, and write COCO files if it has another format.

    Args:
        source: File or folder, see :func:`dap.datasets.detection_data.read_detection_data`.
        val: Another detection set to validate on. Defaults to the split ``val`` or ``test`` of
            ``source``, or every fifth of its images.
        images: Folder of the images of a COCO file, if it is not found near the file.
        out: Folder for the files.

    Raises:
        OSError: If a file is missing.
        ValueError: If a set is malformed, or their categories differ.
    """
    splits = read_detection_data(source, images)
    train = splits[TRAIN]
    if val is not None:
        held = read_detection_data(val)[TRAIN]
    elif VAL in splits or TEST in splits:
        held = splits.get(VAL) or splits[TEST]
    else:
        train, held = _held_out(train)
        print_log(
            f"{source} has no split to validate on: every {_HELD_OUT_STEP}th image is held out, "
            f"{len(held.content['images'])} in all. Give another set by --val",
            "current",
            logging.WARNING,
        )
    held = _in_order(held, train.classes)
    return Target(
        train.classes,
        _file(train, out / "train.json"),
        _file(held, out / "val.json"),
        len(train.content["images"]),
        train.has_masks and held.has_masks,
        any(
            isinstance(item.get("segmentation"), dict) and not item.get("iscrowd")
            for item in train.content["annotations"]
        ),
    )


def _held_out(split: DetectionSplit) -> tuple[DetectionSplit, DetectionSplit]:
    images = split.content["images"]
    if len(images) < 2:
        raise ValueError(
            f"{split.path} has {len(images)} image; expected 2 or more, one of which "
            "is held out, or another set to validate on"
        )
    held = images[min(_HELD_OUT_STEP, len(images)) - 1 :: _HELD_OUT_STEP]
    ids = {image["id"] for image in held}
    return _part(split, ids, False), _part(split, ids, True)


def _part(split: DetectionSplit, ids: set[Any], inside: bool) -> DetectionSplit:
    content = dict(split.content)
    content["images"] = [i for i in content["images"] if (i["id"] in ids) is inside]
    items = content["annotations"]
    content["annotations"] = [i for i in items if (i["image_id"] in ids) is inside]
    return DetectionSplit(split.path, split.images, content)


def _in_order(split: DetectionSplit, classes: tuple[str, ...]) -> DetectionSplit:
    """Sort the categories as in the training set: mmdet's metric numbers them in file order."""
    if split.classes == classes:
        return split
    unknown = sorted(set(split.classes) - set(classes))
    if unknown:
        raise ValueError(
            f"{split.path}: categories {unknown[:5]} are not among those of the training set, "
            f"{list(classes[:5])}; expected the same names"
        )
    names = {category["id"]: category["name"] for category in split.content["categories"]}
    ids = {name: number for number, name in enumerate(classes, 1)}
    items = [
        {**item, "category_id": ids[names[item["category_id"]]]}
        for item in split.content["annotations"]
    ]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    content = {**split.content, "annotations": items, "categories": categories}
    return DetectionSplit(split.path, split.images, content)


def _file(split: DetectionSplit, path: Path) -> CocoFiles:
    """COCO file of a split; it is written unless the split was read from one unchanged."""
    folder = os.path.join(_from_here(split.images), "") if split.images else ""
    if split.unchanged:
        return CocoFiles(split.path, folder)
    write_split(path, split.content, {"description": f"DAP: of {split.path}"})
    return CocoFiles(os.fspath(path), folder)


def _from_here(folder: str) -> str:
    """Path of a folder for a config: relative if it is below the working directory."""
    here = Path.cwd()
    path = Path(folder)
    return os.fspath(path.relative_to(here)) if path.is_relative_to(here) else folder
