"""A store as a COCO file, and a COCO file as a store."""

from __future__ import annotations

import logging
import math
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
from mmengine.logging import print_log

import dap
from dap.coco_boxes import left_out_boxes
from dap.coco_file import canonical_id, read_coco_file
from dap.files import locked, output_file
from dap.images.image_list import NamesDigest
from dap.progress import Progress

from .coco import export_coco
from .coco_reader import CocoReader
from .masks import counts_of
from .reader import MANIFEST, PseudoBoxStore, digests
from .shard import NO_THRESHOLD
from .statistics import UNITS, summary_line
from .writer import StoreWriter, default_shard_size

NO_BOX = "the COCO file has none"
LARGEST = 131072  # pixels, up to which a store keeps hundredths of them
_IMAGE = ("id", "file_name", "height", "width")
_KNOWN = {
    "file": {"info", "categories", "images", "annotations"},
    "image": set(_IMAGE),
    "annotation": {
        *("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "threshold"),
    },
}
_SIDES = (("height", 1, 1 << 31), ("width", 1, 1 << 31))
_LISTS = ("categories", "images", "annotations")
_THRESHOLDS = "settings.thresholds"  # in the info of a file that was made of a store
_MASKS = "settings.masks"  # likewise, if the store has masks
Item = dict[str, Any]
Records = Iterator[Item]
Box = tuple[list[float], str | None]  # a row of the boxes of an image, and its mask if it has one


def convert_annotations(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Call :func:`store_to_coco` or :func:`coco_to_store`, as the source is one or the other."""
    source = Path(source)
    if source.is_dir() or source.name == MANIFEST:
        store_to_coco(source, out)
    else:
        coco_to_store(source, out)


def store_to_coco(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Write the boxes of a store as a COCO file, as its ``annotations.json`` has them.

    Args:
        source: Folder of the store, or its ``manifest.json``.
        out: File to write. One that is there with the same content is kept.

    Raises:
        ValueError: If there is no finished store, it is damaged, or ``out`` is no ``.json``.
        OSError: If ``out`` is there with other content, is a folder, or cannot be written.
    """
    out = output_file(out)
    if out.suffix != ".json":
        raise ValueError(f"{out}: {source} is a store, to be written as a file: name it ….json")
    store = PseudoBoxStore(source)
    export_coco(store, out, once=True)
    print_log(f"{out}: the boxes of {len(store)} images of {store.folder}", logger="current")


def coco_to_store(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> dict[str, Any]:
    """Make a store of a COCO file, to train from it with :class:`dap.datasets.PseudoBoxDataset`.

    The file may be of any origin: it is read by :func:`dap.coco_file.read_coco_file`, which mends
    what can only mean one thing. Ids of images, categories (their order is that of the labels) and
    the threshold of each annotation are kept. Coordinates are rounded to hundredths of a pixel,
    each corner by itself, and boxes that are left without width or height dropped; so are those
    with an area of 0. Annotations are numbered anew. Where each annotation has a segmentation, the
    store has masks. What a store has no place for, such as the segmentations of a file that lacks
    some, is named in a warning, and so are boxes that training will leave out.

    A file that was made of a store is read line by line, whatever its size; any other is held in
    memory. Killed and called again, it goes on with the shards that are missing.

    Args:
        source: The COCO file.
        out: Folder to write, made if need be. A store of the same file in it is kept as it is, an
            unfinished one goes on; any other is refused.

    Returns:
        The content of ``summary.json``.

    Raises:
        ValueError: If the file is no COCO file of boxes, has annotations that are to be ignored in
            training (``iscrowd``, ``ignore``), or ``out`` holds something else.
        RuntimeError: If another process writes ``out``.
        OSError: If a file cannot be read or written; what is finished stays.
    """
    source, out = Path(source), Path(out)
    if out.suffix == ".json" or out.is_file():
        raise ValueError(f"{out}: {source} is a COCO file, to be made a store: name a folder")
    content = _read(source)
    writer = StoreWriter(out, content.described())
    with locked(out / ".lock"):
        missing = writer.begin()
        summary = writer.finished_summary()
        if summary is not None:
            return summary
        if missing:
            _write(content.records(), writer, set(missing))
            content.checks.report()
        summary = writer.finish()
    print_log(f"{out}: {summary_line(summary)}", logger="current")
    return summary


class _Content(NamedTuple):
    """A COCO file, checked.

    Attributes:
        path: The file.
        info: What it says of itself if it was made of a store.
        categories: COCO categories.
        thresholds: Values of τ of its annotations.
        images: Number of images.
        names_sha256: Hash of their names.
        checks: What it was checked by.
        records: Gives the images in their order, with their boxes.
    """

    path: Path
    info: Item | None
    categories: list[Item]
    thresholds: list[float]
    images: int
    names_sha256: str
    checks: _Checks
    records: Callable[[], Records]

    def described(self) -> dict[str, Any]:
        """What the store is made of, as :class:`StoreWriter` takes it."""
        return {
            "settings": {
                "thresholds": self.thresholds,
                **({"masks": True} if self.checks.masks else {}),
            },
            "classifier": {},
            "image_list": {
                "count": self.images,
                "root": "",
                "names_sha256": self.names_sha256,
                "source_sha256": digests([self.path])[0],
            },
            "source": str(self.path),
            "versions": {module.__name__: module.__version__ for module in (dap, np, pa)},
            "shard_size": default_shard_size(self.images),
            "categories": self.categories,
            **({} if self.info is None else {"info": self.info}),
        }


class _Checks:
    """Checks items of a COCO file, and counts what a store cannot hold.

    Args:
        path: The file, for the messages.
        categories: COCO categories.
        thresholds: Values of τ in the order of their indices.
        masks: Whether each annotation is to have a mask.
    """

    def __init__(
        self, path: Path, categories: Any, thresholds: Sequence[float], masks: bool
    ) -> None:
        self.path, self.masks = path, masks
        self.labels = self._labels(categories)
        self.taus = {tau: index for index, tau in enumerate(thresholds)}
        if len(self.taus) >= NO_THRESHOLD:
            raise ValueError(
                f"{path}: {len(self.taus)} values of threshold in the annotations; a store has "
                f"room for {NO_THRESHOLD - 1}. Remove them, if they are scores"
            )
        self.dropped = 0
        self.fields: Counter[str] = Counter()

    def image(self, item: Any) -> Item:
        """An image as a store has it."""
        found: Item = {key: item.get(key) for key in _IMAGE} if isinstance(item, dict) else {}
        for key, least, end in (("id", -(1 << 63), 1 << 63), *_SIDES):
            if type(found.get(key)) is not int or not least <= found[key] < end:
                expected = "a whole number" if key == "id" else "whole pixels, at least 1"
                self.refuse("image", item, f"expected {key}: {expected}; found {found.get(key)!r}")
        try:
            os.fsencode(found["file_name"])
        except (TypeError, UnicodeError) as error:
            self.refuse("image", item, f"expected file_name: a path; found {error}")
        self.count_fields("image", item)
        return found

    def box(self, item: Any, image: Item) -> Box | None:
        """A box of an image, and its mask; None if the annotation has no extent."""
        if not isinstance(item, dict):
            self.refuse("annotation", item, "expected an object")
        if item.get("iscrowd") or item.get("ignore"):
            self.refuse(
                "annotation",
                item,
                "it is to be ignored in training (iscrowd or ignore), which a store cannot say. "
                "Train from this file with type='dap.CheckedCocoDataset', or remove those",
            )
        if item.get("category_id") not in self.labels:
            self.refuse("annotation", item, f"unknown category_id {item.get('category_id')!r}")
        tau = item.get("threshold")
        try:
            index = NO_THRESHOLD if tau is None else self.taus[tau]
        except (KeyError, TypeError):
            self.refuse("annotation", item, f"threshold {tau!r} is not one of {[*self.taus]}")
        try:
            x, y, w, h = item["bbox"]
            corners = [round(UNITS * v) / UNITS for v in (x, y, x + w, y + h)]
            extended = item.get("area", 1) > 0
        except (KeyError, TypeError, ValueError, OverflowError):
            corners = [math.inf]
        if max(map(abs, corners)) >= LARGEST:
            self.refuse("annotation", item, f"expected bbox, 4 numbers of less than {LARGEST} px")
        self.count_fields("annotation", item)
        if not (extended and corners[0] < corners[2] and corners[1] < corners[3]):
            self.dropped += 1
            return None
        mask = self._mask(item, image) if self.masks else None
        return [*corners, self.labels[item["category_id"]], index], mask

    def _mask(self, item: Item, image: Item) -> str:
        try:
            return counts_of(item.get("segmentation"), (image["height"], image["width"]))
        except (ValueError, TypeError) as error:
            self.refuse("annotation", item, str(error))

    def count_fields(self, kind: str, item: Item) -> None:
        """Count the fields of an item that a store has no place for."""
        for key in item.keys() - _KNOWN[kind] - ({"segmentation"} if self.masks else set()):
            if item[key] not in (None, "", [], {}):
                self.fields[f"{key} ({kind})"] += 1

    def report(self) -> None:
        """Warn of what was left out."""
        if self.dropped:
            print_log(
                f"{self.path}: {self.dropped} boxes without width, height or area, rounded to "
                "hundredths of a pixel, are dropped",
                "current",
                logging.WARNING,
            )
        if self.fields:
            named = ", ".join(f"{name}: {count}" for name, count in sorted(self.fields.items()))
            print_log(
                f"{self.path}: a store has no place for these fields, which are left out: {named}",
                "current",
                logging.WARNING,
            )

    def refuse(self, kind: str, item: Any, why: str) -> NoReturn:
        """Raise a ValueError that names an item."""
        named = item.get("id") if isinstance(item, dict) else None
        raise ValueError(f"{self.path}: {kind} {str(item)[:80] if named is None else named}: {why}")

    def different_ids(self, ids: Sequence[int]) -> None:
        """Compare ids of images."""
        values, counts = np.unique(np.asarray(ids, np.int64), return_counts=True)
        if not len(values):
            raise ValueError(f"{self.path} has no images; expected some to make a store of")
        if counts.max() > 1:
            raise ValueError(
                f"{self.path}: {counts.max()} images have id {values[counts.argmax()]}; expected "
                "a different one each"
            )

    def _labels(self, categories: Any) -> dict[int, int]:
        labels: dict[int, int] = {}
        for item in categories:
            given = item if isinstance(item, dict) else {}
            if type(given.get("id")) is not int or not isinstance(given.get("name"), str):
                self.refuse("category", item, "expected a whole number as id, and a name")
            if item["id"] in labels:
                self.refuse("category", item, "another one has this id")
            labels[item["id"]] = len(labels)
        return labels


def _read(path: Path) -> _Content:
    """Check a COCO file of whatever layout."""
    with open(path, encoding="utf-8") as file:
        try:
            reader = CocoReader(file)
        except ValueError:
            return _held(path)
        return _streamed(path, reader) if _is_of_store(reader.info) else _held(path)


def _is_of_store(info: Any) -> bool:
    taus = info.get(_THRESHOLDS) if isinstance(info, dict) else None
    return isinstance(taus, list) and all(isinstance(tau, int | float) for tau in taus)


def _streamed(path: Path, reader: CocoReader) -> _Content:
    """Check the images of a file that was made of a store; leave the boxes for later."""
    thresholds = reader.info[_THRESHOLDS]
    checks = _Checks(path, reader.categories, thresholds, bool(reader.info.get(_MASKS)))
    ids, names = array("q"), NamesDigest()
    for item in reader.images():
        image = checks.image(item)
        ids.append(image["id"])
        _add_name(names, image)
    checks.different_ids(ids)
    return _Content(
        path,
        reader.info,
        reader.categories,
        thresholds,
        len(ids),
        names.hexdigest(),
        checks,
        lambda: _streamed_records(path, checks, ids),
    )


def _streamed_records(path: Path, checks: _Checks, ids: Sequence[int]) -> Records:
    """Read images and annotations side by side: the annotations are in the order of the images."""
    with open(path, encoding="utf-8") as first, open(path, encoding="utf-8") as second:
        images, boxes = CocoReader(first), CocoReader(second)
        boxes.skip_images()
        annotations = boxes.annotations()
        waiting = next(annotations, None)
        for image in images.images():
            own = []
            while waiting is not None and _image_id(waiting) == image["id"]:
                own.append(checks.box(waiting, image))
                waiting = next(annotations, None)
            yield _record({key: image[key] for key in _IMAGE}, own)
    if waiting is not None:
        number = _image_id(waiting)
        if number not in ids:
            checks.refuse("annotation", waiting, f"unknown image_id {number!r}")
        checks.refuse(
            "annotation",
            waiting,
            "it is not in the order of the images, in which Step 2 writes them. Write the file "
            "again from its store, or by Python's json.dump: then it is held in memory, and the "
            "order does not matter",
        )


def _held(path: Path) -> _Content:
    """Read a file as a whole, and check it."""
    content = read_coco_file(path).content
    categories, images, annotations = _with_whole_ids(content)
    thresholds = sorted({tau for tau in map(_threshold, annotations) if tau is not None})
    masks = bool(annotations) and all(map(_has_segmentation, annotations))
    checks = _Checks(path, categories, thresholds, masks)
    checks.count_fields("file", content)
    if content.get("info"):
        checks.fields["info (file)"] += 1
    records = [checks.image(item) for item in images]
    checks.different_ids([record["id"] for record in records])
    image_of = {record["id"]: record for record in records}
    boxes: dict[int, list[Box | None]] = {number: [] for number in image_of}
    for item in annotations:
        number = item["image_id"]
        boxes[number].append(checks.box(item, image_of[number]))
    left_out_boxes(str(path), content).report()
    names = NamesDigest()
    for record in records:
        _add_name(names, record)
    return _Content(
        path,
        None,
        categories,
        thresholds,
        len(records),
        names.hexdigest(),
        checks,
        lambda: (_record(record, boxes[record["id"]]) for record in records),
    )


def _with_whole_ids(content: Item) -> tuple[list[Item], list[Item], list[Item]]:
    """Take categories, images and annotations; ids that are written as text become numbers."""
    lists = [content[key] for key in _LISTS]
    for items, keys in zip(lists, (("id",), ("id",), ("image_id", "category_id")), strict=True):
        for item in items:
            item.update({key: canonical_id(item[key]) for key in keys})
    categories, images, annotations = lists
    return categories, images, annotations


def _image_id(annotation: Any) -> Any:
    return annotation.get("image_id") if isinstance(annotation, dict) else None


def _has_segmentation(annotation: Any) -> bool:
    return isinstance(annotation, dict) and bool(annotation.get("segmentation"))


def _threshold(annotation: Any) -> float | None:
    tau = annotation.get("threshold") if isinstance(annotation, dict) else None
    return tau if isinstance(tau, int | float) and math.isfinite(tau) else None


def _add_name(names: NamesDigest, image: Item) -> None:
    name = os.fsencode(image["file_name"])
    names.update(name, [len(name)])


def _record(image: Item, boxes: Iterable[Box | None]) -> Item:
    """An image as :meth:`StoreWriter.write` takes it."""
    found = [box for box in boxes if box is not None]
    masks = [mask for _, mask in found if mask is not None]
    return {
        **image,
        "boxes": [row for row, _ in found],
        **({"masks": masks} if masks else {}),
        **({} if found else {"reason": NO_BOX}),
    }


def _write(records: Records, writer: StoreWriter, missing: set[int]) -> None:
    """Write the missing shards; the last one when the whole file has been found right."""
    progress = Progress(writer.count, writer.count)
    for shard in range(writer.shards):
        chunk = []
        for record in islice(records, len(writer.indices(shard))):
            chunk.append(record)
            progress.step()
        if shard == writer.shards - 1:
            next(records, None)
        if shard in missing:
            writer.write(shard, chunk)
    progress.close()
