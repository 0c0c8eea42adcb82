"""Ground truth boxes from COCO files and from the formats of ImageNet's boxes."""

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

from dap.datasets.voc_files import parse_voc
from dap.files import files_below, read_bytes
from dap.store.masks import counts_of, segmentation


@dataclass(frozen=True)
class GroundTruth:
    """Objects of a set of images, in columns.

    Attributes:
        layout: Format that it was read from: ``'COCO'``, ``'XML'``, ``'LOC_solution'``,
            ``'localization.txt'``.
        names: Names of the images: file names relative to some root, without suffix if the format
            has none.
        starts: Index of the first object per image, shape (images + 1,).
        boxes: xyxy, half-open, in pixels of the original image, with a positive area, float64,
            shape (M, 4).
        labels: Index of the category per object, 0 without categories, shape (M,).
        ignored: Objects that count neither as detected nor as missed, bool, shape (M,).
        categories: Names of the categories; None if the format has none.
        without_area: Number of objects that were left out because their box has no area.
        masks: COCO's compressed RLE per object, M of them; None if they were not requested or
            some object has none.
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
        """Masks of the objects of an image; an empty list without masks."""
        return [] if self.masks is None else self.masks[self.starts[image] : self.starts[image + 1]]

    def objects_of(self, image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes, labels and ignored flags of the objects of an image."""
        rows = slice(self.starts[image], self.starts[image + 1])
        return self.boxes[rows], self.labels[rows], self.ignored[rows]


def read_ground_truth(
    path: str | os.PathLike[str], one_based: bool = False, with_masks: bool = False
) -> GroundTruth:
    """Read ground truth; the format is recognised from the path and the content.

    - A **folder** of VOC-style XML files, such as ``ILSVRC2012_bbox_val_v3``, named like the
      images. Corners are read as edges, x from 0 to the width, which is ILSVRC's convention as far
      as it is known, see :func:`dap.datasets.voc_xml.convert_xml_tree`; with ``one_based``, by
      Pascal VOC's convention. Objects marked ``difficult`` or ``ignore`` are ignored.
    - A **.json** file: COCO; boxes are x, y, width, height. Objects marked ``iscrowd`` or
      ``ignore`` are ignored.
    - Kaggle's **LOC_val_solution.csv**: an image and all its objects per line, such as
      ``ILSVRC2012_val_00048981,n03995372 85 1 499 272``. The corners are those of the XML files,
      and are read likewise.
    - wsolevaluation's **localization.txt**: an object per line, without a class, such as
      ``val/ILSVRC2012_val_00000001.JPEG,111,108,441,193``, in pixels of the original image. Its
      corners of ILSVRC are those of the XML files, clipped to the last pixel; a box at the right
      or lower edge is therefore one pixel smaller than in the XML files.

    Args:
        path: File or folder.
        one_based: Whether XML files follow Pascal VOC: pixels from 1, both corners inside.
        with_masks: Whether to read the masks of a COCO file if each object has one.

    Raises:
        OSError: If the path cannot be read.
        ValueError: If the format is not recognised, or a file or line is malformed.
    """
    path = Path(path)
    if one_based and not path.is_dir():
        raise ValueError(f"{path} is no folder of XML files, to which one_based applies")
    if path.is_dir():
        return _read_xml_folder(path, one_based)
    if path.suffix.lower() == ".json":
        return _read_coco(path, with_masks)
    return _read_text(path)


class _Columns:
    """Collects objects, in any order of the images."""

    def __init__(self) -> None:
        self.images: dict[str, int] = {}
        self.categories: dict[str, int] = {}
        self.rows: list[tuple[float, ...]] = []
        self.keys: list[tuple[int, int, bool]] = []

    def image(self, name: str) -> int:
        """Index of an image, which is added if it is new."""
        return self.images.setdefault(name, len(self.images))

    def add(
        self, image: int, category: str | None, box: Sequence[float], ignored: bool = False
    ) -> None:
        """Add an object with an xyxy box."""
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
        """Return the objects that have an area, sorted by image."""
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
            objects = parse_voc((folder / name).read_bytes()).objects
        except ValueError as error:
            raise ValueError(f"{folder / name}: {error}. Expected VOC-style XML") from error
        image = columns.image(os.path.splitext(name)[0])
        for item in objects:
            columns.add(image, item.name, item.edges(one_based), item.ignored)
    return columns.finish(folder, "XML")


def _read_coco(path: Path, with_masks: bool) -> GroundTruth:
    columns, masks = _Columns(), []
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:  # its message has line and column
        raise ValueError(f"{path} is no JSON: {error}. Expected a COCO file") from error
    part = "categories"
    try:
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
