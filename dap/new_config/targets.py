"""The detection set of a fine-tuning as COCO files for training and validation."""

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

_EVERY = 5  # of the images of a set without a validation split, one is held out


class CocoFiles(NamedTuple):
    """A COCO file, and the folder of its images, ending with a slash."""

    annotations: str
    images: str


class Target(NamedTuple):
    """A detection set.

    Attributes:
        classes: Names of its categories in the order of both files.
        train: To train on.
        val: To validate on.
        size: Images to train on.
        has_masks: Whether all objects of both have an outline.
        has_rle: Whether there are masks to train on that are no polygons.
    """

    classes: tuple[str, ...]
    train: CocoFiles
    val: CocoFiles
    size: int
    has_masks: bool
    has_rle: bool


def read_target(source: str, val: str | None, images: str | None, out: Path) -> Target:
    """Read a detection set in any format, and write COCO files where it is none.

    Args:
        source: File or folder, see :func:`dap.datasets.detection_data.read_detection_data`.
        val: Another one to validate on. By default the split ``val`` or ``test`` of ``source``, or
            each fifth of its images.
        images: Folder of the images of a COCO file, if it is not found beside it.
        out: Folder for the files.

    Raises:
        OSError: If a file is missing.
        ValueError: If a set is malformed, or the two have other categories.
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
            f"{source} has no split to validate on: each {_EVERY}th image is held out, "
            f"{len(held.content['images'])} of them. Name another set with --val",
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
    held = images[min(_EVERY, len(images)) - 1 :: _EVERY]
    ids = {image["id"] for image in held}
    return _part(split, ids, False), _part(split, ids, True)


def _part(split: DetectionSplit, ids: set[Any], inside: bool) -> DetectionSplit:
    content = dict(split.content)
    content["images"] = [i for i in content["images"] if (i["id"] in ids) is inside]
    items = content["annotations"]
    content["annotations"] = [i for i in items if (i["image_id"] in ids) is inside]
    return DetectionSplit(split.path, split.images, content)


def _in_order(split: DetectionSplit, classes: tuple[str, ...]) -> DetectionSplit:
    """Bring the categories into the order of the training set, as mmdet's metric numbers them."""
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
    """The file of a split, written where there is none with just this content."""
    folder = os.path.join(_from_here(split.images), "") if split.images else ""
    if split.unchanged:
        return CocoFiles(split.path, folder)
    write_split(path, split.content, f"of {split.path}")
    return CocoFiles(os.fspath(path), folder)


def _from_here(folder: str) -> str:
    """A folder as configs name it: below the working directory without the path to it."""
    here = Path.cwd()
    path = Path(folder)
    return os.fspath(path.relative_to(here)) if path.is_relative_to(here) else folder
