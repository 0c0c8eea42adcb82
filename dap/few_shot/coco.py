"""COCO files and sets in other formats as the source of few-shot subsets."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from dap.coco_boxes import left_out_boxes
from dap.coco_file import read_coco_file
from dap.datasets.detection_data import TRAIN, read_detection_data

from .source import DetectionSource, make_source


def read_coco(
    path: str | os.PathLike[str], exclude: Sequence[str | os.PathLike[str]] = ()
) -> DetectionSource:
    """Read a COCO file, see :func:`dap.coco_file.read_coco_file`.

    A box is usable if mmdet trains on it: not a crowd, not ``ignore``, at least one pixel wide and
    high, with a positive area, and not outside its image. Other boxes are counted and named in a
    warning. The key of an image is its id.

    Args:
        path: The json file.
        exclude: Text files or COCO files with names of images to leave out.

    Returns:
        The source. Its only file is ``annotations.json``, the repaired content of ``path`` with
        fewer images.

    Raises:
        FileNotFoundError: If ``path`` or a file of ``exclude`` is missing.
        ValueError: If a file is malformed, or no usable box is left.
    """
    coco = read_coco_file(path)
    left_out_boxes(os.fspath(path), coco.content).report()
    stem = Path(path).stem
    name = "coco" if stem.startswith("instances_") else stem
    return _source(coco.content, name, os.fspath(path), coco.sha256, exclude)


def read_data(
    path: str | os.PathLike[str], exclude: Sequence[str | os.PathLike[str]] = ()
) -> DetectionSource:
    """Read the training split of a set in any format, as :func:`read_coco` reads a COCO file.

    Args:
        path: See :func:`dap.datasets.detection_data.read_detection_data`.
        exclude: Text files or COCO files with names of images to leave out.

    Returns:
        The source. File names in its ``annotations.json`` are relative to a folder that is logged.

    Raises:
        OSError: If a file is missing.
        ValueError: If a file is malformed, or no usable box is left.
    """
    split = read_detection_data(path)[TRAIN]
    print_log(f"{path}: file names are relative to {split.images or '/'}", "current")
    digest = hashlib.sha256(json.dumps(split.content).encode()).hexdigest()
    root = Path(path)
    name = root.stem if root.is_file() and root.suffix != ".yaml" else root.resolve().name
    return _source(split.content, name, os.fspath(path), digest, exclude)


def _source(
    content: dict[str, Any],
    name: str,
    path: str,
    sha256: str,
    exclude: Sequence[str | os.PathLike[str]],
) -> DetectionSource:
    return make_source(
        content,
        (str(image["id"]) for image in content["images"]),
        exclude,
        name=name,
        paths=(path,),
        split=None,
        sha256=sha256,
        files=partial(_subset, content),
    )


def _subset(content: Mapping[str, Any], images: Collection[str]) -> dict[str, str]:
    subset = dict(content)
    for key, image_id in (("images", "id"), ("annotations", "image_id")):
        subset[key] = [item for item in content[key] if str(item[image_id]) in images]
    return {"annotations.json": json.dumps(subset) + "\n"}
