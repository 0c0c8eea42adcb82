"""A COCO file as the source of few-shot subsets."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dap.datasets.few_shot_source import (
    DetectionSource,
    check_usable,
    find_excluded,
    parse_coco,
)
from dap.files import read_bytes


def read_coco(
    path: str | os.PathLike[str], exclude: Sequence[str | os.PathLike[str]] = ()
) -> DetectionSource:
    """Read a COCO file.

    A box is usable if mmdet trains on it: no crowd, not ``ignore``, at least one pixel wide and
    high, with an area, and not outside of its image. An image is called by its id.

    Args:
        path: The json file.
        exclude: Text files or COCO files with names of images to leave out.

    Returns:
        The set. Its file is ``annotations.json``: the content of ``path`` with fewer images.

    Raises:
        FileNotFoundError: If ``path`` or a file of ``exclude`` is missing.
        ValueError: If a file is malformed, or no usable box is left.
    """
    raw = read_bytes(path)
    content = parse_coco(raw, path, ("images", "annotations", "categories"))
    try:
        images = {str(image["id"]): image for image in content["images"]}
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        files = {key: image["file_name"] for key, image in images.items()}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: an image or a category is malformed ({error!r}); expected images with id "
            "and file_name, categories with id and name"
        ) from error
    if len(images) < len(content["images"]) or len(set(names.values())) < len(
        content["categories"]
    ):
        raise ValueError(
            f"{path}: two images or categories have the same id, or two categories the same name; "
            "expected each once. Number or name them anew"
        )
    boxes = {key: Counter[str]() for key in images}
    for annotation in content["annotations"]:
        _count(annotation, images, names, boxes, path)
    unwanted = find_excluded(files, exclude)
    stem = Path(path).stem
    return check_usable(
        DetectionSource(
            name="coco" if stem.startswith("instances_") else stem,
            paths=(os.fspath(path),),
            split=None,
            sha256=hashlib.sha256(raw).hexdigest(),
            classes=tuple(names.values()),
            boxes={key: counts for key, counts in boxes.items() if key not in unwanted},
            excluded={"in_test_list": 0, "in_exclude_files": len(unwanted)},
            files=partial(_subset, content),
        )
    )


def _count(
    annotation: Mapping[str, Any],
    images: Mapping[str, Mapping[str, Any]],
    names: Mapping[int, str],
    boxes: Mapping[str, Counter[str]],
    path: str | os.PathLike[str],
) -> None:
    """Add an annotation to the boxes of its image, if mmdet's ``CocoDataset`` trains on it."""
    try:
        key = str(annotation["image_id"])
        image, name = images[key], names[annotation["category_id"]]
        x, y, w, h = annotation["bbox"]
        inside_w = min(x + w, image["width"]) - max(x, 0)
        inside_h = min(y + h, image["height"]) - max(y, 0)
        usable = min(inside_w, inside_h) > 0 and min(w, h) >= 1 and annotation["area"] > 0
        if usable and not annotation.get("iscrowd") and not annotation.get("ignore"):
            boxes[key][name] += 1
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: malformed annotation {str(annotation)[:200]} ({error!r}); expected image_id "
            "and category_id of an image and a category in the file, bbox as [x, y, width, "
            "height], area; and width and height of the image"
        ) from error


def _subset(content: Mapping[str, Any], images: Collection[str]) -> dict[str, str]:
    subset = dict(content)
    subset["images"] = [image for image in content["images"] if str(image["id"]) in images]
    subset["annotations"] = [
        annotation for annotation in content["annotations"] if str(annotation["image_id"]) in images
    ]
    return {"annotations.json": json.dumps(subset) + "\n"}
