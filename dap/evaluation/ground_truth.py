"""Ground truth boxes from COCO json and from the layouts that ImageNet's boxes come in."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dap.datasets.voc_xml import read_xml
from dap.files import files_below, read_bytes
from dap.store.masks import counts_of, segmentation


@dataclass(frozen=True)
class GroundTruth:
    """The objects of a set of images, in columns.

    Attributes:
        layout: What it was read from: ``'COCO'``, ``'XML'``, ``'LOC_solution'``,
            ``'localization.txt'``.
        names: Name of each image: its file name relative to some root, or without suffix where
            the layout has none.
        starts: Where the objects of each image start, shape (images + 1,).
        boxes: xyxy, half-open, in pixels of the original image, with an area, float64, shape
            (M, 4).
        labels: Index of the category of each, or 0 where there are none, shape (M,).
        ignored: Which are neither to be found nor to be missed, bool, shape (M,).
        categories: Names of the categories; None where the layout has none.
        without_area: Number of objects that were left out, since their box has no area.
        masks: COCO's compressed RLE of each object, M of them; None if they were not asked for, or
            not each object has one.
    """

    layout: str
    names: list[str]
    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    categories: list[str] | None
    without_area: int
    masks: list[dict[str, Any]] | None = None

    def masks_of(self, image: int) -> list[dict[str, Any]]:
        """Masks of the objects of an image; none if there are none."""
        return [] if self.masks is None else self.masks[self.starts[image] : self.starts[image + 1]]

    def objects_of(self, image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes, labels and flags of the objects of an image."""
        rows = slice(self.starts[image], self.starts[image + 1])
        return self.boxes[rows], self.labels[rows], self.ignored[rows]


def read_ground_truth(
    path: str | os.PathLike[str], one_based: bool = False, with_masks: bool = False
) -> GroundTruth:
    """Read ground truth, in the layout that the path shows.

    - A **folder** of VOC-style XML files, such as ``ILSVRC2012_bbox_val_v3``: named like the
      images. Corners are taken for edges as they stand, x from 0 to the width: ILSVRC's
      convention as far as it is known, see :func:`dap.datasets.voc_xml.convert_xml_tree`. With
      ``one_based`` they are Pascal VOC's. Objects that are ``difficult`` or ``ignore`` are ignored.
    - A **.json** file: COCO; boxes are x, y, width, height. Objects that are ``iscrowd`` or
      ``ignore`` are ignored.
    - Kaggle's **LOC_val_solution.csv**: lines like
      ``ILSVRC2012_val_00048981,n03995372 85 1 499 272``, an image and its objects one behind the
      other. The corners are those of the XML files, and are taken alike.
    - wsolevaluation's **localization.txt**: lines like
      ``val/ILSVRC2012_val_00000001.JPEG,111,108,441,193``, an object each, without a class, in
      pixels of the original image. The corners of ILSVRC's are those of the XML files, limited to
      the last pixel, and are taken as they stand too: a box at the right or lower edge is a pixel
      smaller than from the XML files.

    Args:
        path: File or folder.
        one_based: Whether the XML files are Pascal VOC's: pixels from 1, both ends inside.
        with_masks: Whether to read the masks of a COCO file in which each object has one.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is of no such layout, or a file or line of it is malformed.
    """
    path = Path(path)
    if one_based and not path.is_dir():
        raise ValueError(f"{path} is no folder of XML files: one_based is theirs alone")
    if path.is_dir():
        return _read_xml_folder(path, one_based)
    if path.suffix.lower() == ".json":
        return _read_coco(path, with_masks)
    return _read_text(path)


class _Columns:
    """Collects objects in any order of their images."""

    def __init__(self) -> None:
        self.images: dict[str, int] = {}
        self.categories: dict[str, int] = {}
        self.rows: list[tuple[float, ...]] = []
        self.keys: list[tuple[int, int, bool]] = []

    def image(self, name: str) -> int:
        """Number of an image."""
        return self.images.setdefault(name, len(self.images))

    def add(
        self, image: int, category: str | None, box: Sequence[float], ignored: bool = False
    ) -> None:
        """Add an object, xyxy."""
        label = (
            0 if category is None else self.categories.setdefault(category, len(self.categories))
        )
        self.rows.append(tuple(box))
        self.keys.append((image, label, ignored))

    def finish(
        self,
        path: Path,
        layout: str,
        with_classes: bool = True,
        masks: list[dict[str, Any]] | None = None,
    ) -> GroundTruth:
        """All objects with area, sorted by image."""
        boxes = np.array(self.rows, np.float64).reshape(-1, 4)
        keys = np.array(self.keys, np.int64).reshape(-1, 3)
        keep = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
        if not len(keep):
            raise ValueError(
                f"{path}: expected boxes, found {len(self.images)} images and none that has a box "
                "with an area"
            )
        order = keep[np.argsort(keys[keep, 0], kind="stable")]
        per_image = np.bincount(keys[order, 0], minlength=len(self.images))
        return GroundTruth(
            layout=layout,
            names=list(self.images),
            starts=np.cumsum([0, *per_image]),
            boxes=boxes[order],
            labels=keys[order, 1],
            ignored=keys[order, 2].astype(bool),
            categories=list(self.categories) if with_classes else None,
            without_area=len(boxes) - len(keep),
            masks=None if masks is None else [masks[i] for i in order.tolist()],
        )


def _read_xml_folder(folder: Path, one_based: bool) -> GroundTruth:
    columns = _Columns()
    files = files_below(folder, (".xml",))
    if not files:
        raise ValueError(f"{folder}: expected XML files, found none in it or below it")
    for name in tqdm(files, unit="xml", mininterval=0.1 if sys.stderr.isatty() else 30):
        try:
            record = read_xml(folder / name, one_based)
        except ValueError as error:
            raise ValueError(f"{folder / name}: {error}. Expected VOC-style XML") from error
        image = columns.image(os.path.splitext(name)[0])
        for category, (x, y, w, h), ignored in record["objects"]:
            columns.add(image, category, (x, y, x + w, y + h), ignored)
    return columns.finish(folder, "XML")


def _read_coco(path: Path, with_masks: bool) -> GroundTruth:
    columns, masks = _Columns(), []
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:  # it has line and column
        raise ValueError(f"{path} is no JSON: {error}. Expected a COCO file") from error
    part = "the file"
    try:
        part = "categories"
        names = {item["id"]: str(item["name"]) for item in content["categories"]}
        part = "images"
        images = {item["id"]: columns.image(item["file_name"]) for item in content["images"]}
        with_masks &= all(item.get("segmentation") for item in content["annotations"])
        if with_masks:
            sizes = {item["id"]: (item["height"], item["width"]) for item in content["images"]}
        if not len(images) == len(columns.images) == len(content["images"]):
            raise ValueError("an id or a file_name stands there twice")
        for number, item in enumerate(content["annotations"]):
            part = f"annotations[{number}]"
            x, y, w, h = _finite(item["bbox"])
            ignored = bool(item.get("iscrowd") or item.get("ignore"))
            category = names[item["category_id"]]
            columns.add(images[item["image_id"]], category, (x, y, x + w, y + h), ignored)
            if with_masks:
                size_hw = sizes[item["image_id"]]
                counts = counts_of(item["segmentation"], size_hw)
                masks.append(segmentation(counts, size_hw))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}, {part}: {type(error).__name__} {error}. Expected a COCO file: images with id "
            "and file_name, categories with id and name, annotations with image_id, category_id "
            "and bbox (x, y, width, height)"
        ) from error
    return columns.finish(path, "COCO", masks=masks if with_masks else None)


def _read_text(path: Path) -> GroundTruth:
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}. {_EXPECTED}") from error
    columns, first = _Columns(), lines[0].strip() if lines else ""
    solution = first == "ImageId,PredictionString"
    read_line = _read_solution_line if solution else _read_localization_line
    for number, line in enumerate(lines, 1):
        if not line.strip() or (solution and number == 1):
            continue
        try:
            read_line(columns, line.strip())
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: found {line[:80]!r} ({error}). {_EXPECTED}"
            ) from error
    return columns.finish(path, "LOC_solution" if solution else "localization.txt", solution)


_EXPECTED = (
    "Expected COCO json, a folder of XML files, Kaggle's LOC_val_solution.csv (first line "
    "ImageId,PredictionString, then image,class x1 y1 x2 y2 …) or wsolevaluation's "
    "localization.txt (image,x1,y1,x2,y2)"
)


def _read_solution_line(columns: _Columns, line: str) -> None:
    name, comma, text = line.partition(",")
    words = text.split()
    if not comma or len(words) % 5:
        raise ValueError(f"{len(words)} words, and five an object are expected")
    image = columns.image(name)
    for start in range(0, len(words), 5):
        columns.add(image, words[start], _finite(words[start + 1 : start + 5]))


def _read_localization_line(columns: _Columns, line: str) -> None:
    name, *corners = line.rsplit(",", 4)
    columns.add(columns.image(name), None, _finite(corners))


def _finite(numbers: Sequence[Any]) -> list[float]:
    values = [float(number) for number in numbers]
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise ValueError(f"expected four numbers, found {list(numbers)}")
    return values
