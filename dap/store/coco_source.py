"""Reading a COCO file as the content of a store: line by line where possible, else in memory."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dap.coco_boxes import left_out_boxes
from dap.coco_file import canonical_id, read_coco_file
from dap.images.image_list import NamesDigest

from .coco_checks import IMAGE_FIELDS, Box, CocoChecks, Item
from .coco_reader import CocoReader

NO_BOX = "the COCO file has none"
# Keys of the info of a file that was written from a store.
_THRESHOLDS, _MASKS = "settings.thresholds", "settings.masks"


class CocoSource(NamedTuple):
    """The content of a COCO file.

    Attributes:
        info: The ``info`` of the file if it was written from a store, else None.
        categories: COCO categories.
        thresholds: Thresholds of the annotations.
        images: Number of images.
        names_sha256: Hash of their file names.
        checks: The checks of the items.
        records: Returns an iterator over the images in their order, with their boxes, as
            :meth:`dap.store.writer.StoreWriter.write` takes them. It checks what has not been
            checked yet.
    """

    info: Item | None
    categories: list[Item]
    thresholds: list[float]
    images: int
    names_sha256: str
    checks: CocoChecks
    records: Callable[[], Iterator[Item]]


def open_coco_source(path: Path) -> CocoSource:
    """Open a COCO file; check its images and, if it is held in memory, its annotations.

    A file that was written from a store is read line by line, any other as a whole.

    Raises:
        ValueError: If an item is not valid; it names the file and the item.
        OSError: If the file cannot be read.
    """
    with open(path, encoding="utf-8") as file:
        try:
            reader = CocoReader(file)
        except ValueError:
            return _source_in_memory(path)
        is_of_store = isinstance(reader.info, dict) and _are_thresholds(
            reader.info.get(_THRESHOLDS)
        )
        return _source_by_line(path, reader) if is_of_store else _source_in_memory(path)


def _source_by_line(path: Path, reader: CocoReader) -> CocoSource:
    """Check the images of a file that was written from a store; the boxes are checked later."""
    thresholds = reader.info[_THRESHOLDS]
    checks = CocoChecks(path, reader.categories, thresholds, bool(reader.info.get(_MASKS)))
    ids, names = array("q"), NamesDigest()
    for item in reader.images():
        image = checks.image(item)
        ids.append(image["id"])
        _add_name(names, image)
    checks.require_distinct_ids(ids)
    return CocoSource(
        reader.info,
        reader.categories,
        thresholds,
        len(ids),
        names.hexdigest(),
        checks,
        lambda: _records_by_line(path, checks, ids),
    )


def _records_by_line(path: Path, checks: CocoChecks, ids: Sequence[int]) -> Iterator[Item]:
    """Read images and annotations in parallel; annotations must be in the order of the images."""
    with open(path, encoding="utf-8") as image_file, open(path, encoding="utf-8") as box_file:
        image_reader, box_reader = CocoReader(image_file), CocoReader(box_file)
        box_reader.skip_images()
        annotations = box_reader.annotations()
        annotation = next(annotations, None)
        for item in image_reader.images():
            image = {key: item[key] for key in IMAGE_FIELDS}
            boxes = []
            while annotation is not None and _image_id(annotation) == image["id"]:
                boxes.append(checks.box(annotation, image))
                annotation = next(annotations, None)
            yield _record(image, boxes)
    if annotation is not None:
        image_id = _image_id(annotation)
        if image_id not in ids:
            checks.refuse("annotation", annotation, f"unknown image_id {image_id!r}")
        checks.refuse(
            "annotation",
            annotation,
            "it is not in the order of the images, in which Step 2 writes them. Write the file "
            "again from its store, or by Python's json.dump: then it is held in memory, and the "
            "order does not matter",
        )


def _source_in_memory(path: Path) -> CocoSource:
    """Read a file as a whole, and check all of it."""
    content = read_coco_file(path).content
    categories, images, annotations = _with_integer_ids(content)
    thresholds = sorted({item["threshold"] for item in annotations if _has_threshold(item)})
    masks = bool(annotations) and all(item.get("segmentation") for item in annotations)
    checks = CocoChecks(path, categories, thresholds, masks)
    checks.count_left_out_fields("file", content)
    images_by_id = {image["id"]: image for image in map(checks.image, images)}
    checks.require_distinct_ids([item["id"] for item in images])
    boxes: dict[int, list[Box | None]] = {image_id: [] for image_id in images_by_id}
    for item in annotations:
        image_id = item["image_id"]
        boxes[image_id].append(checks.box(item, images_by_id[image_id]))
    left_out_boxes(str(path), content).report()
    names = NamesDigest()
    for image in images_by_id.values():
        _add_name(names, image)
    return CocoSource(
        None,
        categories,
        thresholds,
        len(images_by_id),
        names.hexdigest(),
        checks,
        lambda: (_record(image, boxes[image_id]) for image_id, image in images_by_id.items()),
    )


def _with_integer_ids(content: Item) -> list[list[Item]]:
    """Return categories, images and annotations, with ids in text converted to integers."""
    id_keys = {"categories": ("id",), "images": ("id",), "annotations": ("image_id", "category_id")}
    for kind, keys in id_keys.items():
        for item in content[kind]:
            item.update({key: canonical_id(item[key]) for key in keys})
    return [content[kind] for kind in id_keys]


def _are_thresholds(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(tau, int | float) for tau in values)


def _has_threshold(annotation: Item) -> bool:
    tau = annotation.get("threshold")
    return isinstance(tau, int | float) and math.isfinite(tau)


def _image_id(annotation: Any) -> Any:
    return annotation.get("image_id") if isinstance(annotation, dict) else None


def _add_name(names: NamesDigest, image: Item) -> None:
    name = os.fsencode(image["file_name"])
    names.update(name, [len(name)])


def _record(image: Item, boxes: Iterable[Box | None]) -> Item:
    """An image as :meth:`dap.store.writer.StoreWriter.write` takes it."""
    kept = [box for box in boxes if box is not None]
    masks = [mask for _, mask in kept if mask is not None]
    return {
        **image,
        "boxes": [row for row, _ in kept],
        **({"masks": masks} if masks else {}),
        **({} if kept else {"reason": NO_BOX}),
    }
