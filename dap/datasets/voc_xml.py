"""Convert trees of VOC-style XML files, such as those of ILSVRC DET, to one COCO file."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from dap.coco_boxes import OUTSIDE, looks_swapped, why_left_out
from dap.coco_file import parse_coco
from dap.files import (
    files_below,
    output_file,
    read_bytes,
    read_names,
    write_coco,
)

from .voc_files import ImageFinder, alike_names, parse_voc

_NO_AREA, _OUTSIDE = "dropped_without_area", "dropped_outside"


def convert_xml_tree(
    annotations: str | os.PathLike[str],
    images: str | os.PathLike[str],
    out: str | os.PathLike[str],
    classes: Sequence[str] | None = None,
    *,
    stems: Sequence[str] | None = None,
    one_based: bool = False,
) -> dict[str, Any]:
    """Convert a tree of VOC-style XML files to one COCO file.

    An image is found by the path of its XML file, whatever ``<filename>`` and ``<folder>`` say,
    and whatever kind of image it is::

        ILSVRC/
        ├── Annotations/DET/train/              annotations
        │   ├── ILSVRC2013_train/n01440764/n01440764_10040.xml …
        │   └── ILSVRC2014_train_0000/ILSVRC2014_train_00000001.xml …
        └── Data/DET/train/                     images
            ├── ILSVRC2013_train/n01440764/n01440764_10040.JPEG …
            └── ILSVRC2014_train_0000/ILSVRC2014_train_00000001.JPEG …

    Corners become boxes in one of two ways:

    - ILSVRC's run from 0 to the width, so that they are taken for the edges as they stand:
      x = xmin, w = xmax - xmin. (Its development kit does not say; common readers agree about 0
      and the width, and differ by a pixel in the rest.)
    - Pascal VOC (``one_based``) counts pixels from 1, both ends inside the box: x = xmin - 1,
      w = xmax - xmin + 1. (mmdet's ``XMLDataset`` takes w = xmax - xmin, a pixel less.)

    An object that is ``difficult`` or ``ignore`` gets ``iscrowd`` 1, which mmdet ignores in
    training as it does difficult objects of VOC. Images without objects stay in the file; mmdet's
    ``filter_empty_gt`` leaves them out of training. Images without an XML file, as some of
    ILSVRC's negative ones, are not in it. Sizes are those that the XML files state; the images
    are not opened.

    Args:
        annotations: Folder of the XML files and of folders with them.
        images: Folder of the images, laid out alike. File names are relative to it.
        out: COCO file to write. One that is there with the same content is kept.
        classes: Category names in the order of ids 1, 2, …; boxes of others are dropped and
            counted. Defaults to all that occur, sorted: of ILSVRC the WordNet ids.
        stems: Which files: paths relative to ``annotations`` without ``.xml``, each taken once.
            Defaults to all.
        one_based: Whether corners are VOC's rather than ILSVRC's.

    Returns:
        ``images``, ``annotations``, ``ignored`` (of these), ``categories``, and the numbers of
        boxes ``dropped_without_area``, ``dropped_outside`` of the stated size and
        ``dropped_of_other_classes``; ``left_out`` has ``file`` and ``reason`` of each XML file that
        is broken, states no size, or has no image, ``dropped`` those of each box without area or
        outside, ``swapped`` those of files whose width and height look exchanged, and ``alike`` the
        names of classes that differ in upper and lower case alone.

    Raises:
        OSError: If a folder is not there, ``out`` is a folder or a file with other content.
        ValueError: If there is no XML file, none is usable, or none has an object of the classes
            that has an area and is not to be ignored.
    """
    out = output_file(out)
    root, names_found, usable = Path(annotations), set[str](), set[str]()
    if stems is None:
        stems = [os.path.splitext(name)[0] for name in files_below(root, (".xml",))]
    stems = list(dict.fromkeys(stems))
    find_image = ImageFinder(Path(images))
    left_out: list[dict[str, str]] = []
    interval = 0.1 if sys.stderr.isatty() else 30
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
        for stem in tqdm(stems, unit="xml", mininterval=interval):
            try:
                record = {
                    "stem": stem,
                    "file_name": find_image(stem),
                    **read_xml(root / f"{stem}.xml", one_based),
                }
            except (ValueError, OSError) as error:
                left_out.append({"file": f"{stem}.xml", "reason": f"{error}"})
                continue
            spool.write(json.dumps(record) + "\n")
            for name, bbox, ignore in record["objects"]:
                names_found.add(name)
                if not ignore and _fault(bbox, record) is None:
                    usable.add(name)
        if len(left_out) == len(stems):
            first = f"; {left_out[0]['file']}: {left_out[0]['reason']}" if left_out else ""
            raise ValueError(
                f"{root}: expected XML files that have an image in {images}, found {len(stems)} "
                f"XML files and none that is usable{first}"
            )
        names = list(sorted(names_found) if classes is None else classes)
        if not usable & set(names):
            raise ValueError(
                f"{root}: none of {len(stems)} XML files has an object to train on, with an area "
                "and not difficult or ignore"
                + (f", of the {len(names)} classes, such as {names[0]}" if names else "")
            )
        done = _write(out, spool, names, left_out, one_based)
    return {**done, "alike": alike_names(names_found, names)}


def _fault(bbox: Sequence[float], record: Mapping[str, Any]) -> str | None:
    """Reason why an xywh box of an image is dropped; None if it is kept."""
    if min(bbox[2:]) <= 0:
        return _NO_AREA
    reason = why_left_out(bbox, 1, (record["width"], record["height"]))
    return _OUTSIDE if reason == OUTSIDE else None


def read_classes(path: str | os.PathLike[str]) -> list[str]:
    """Read category names in order: one per line, or those of a COCO file (``.json``).

    Raises:
        ValueError: If a list has none, or one twice, or a ``.json`` is no COCO file.
    """
    if Path(path).suffix.lower() != ".json":
        return read_names(path)
    categories = parse_coco(read_bytes(path), path, ("categories",))["categories"]
    return [str(category["name"]) for category in categories]


def read_xml(path: Path, one_based: bool = False) -> dict[str, Any]:
    """Read the size of an image and its objects from a VOC-style XML file.

    Args:
        path: The file.
        one_based: Whether corners are VOC's rather than ILSVRC's, see :func:`convert_xml_tree`.

    Returns:
        ``width`` and ``height`` in pixels; ``objects``, each a name, an xywh box in pixels, and
        whether it is to be ignored.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no XML, states no size, or an object lacks its name or a corner; it
            names the tag and the value, see :func:`dap.datasets.voc_files.parse_voc`.
    """
    width, height, objects = parse_voc(path.read_bytes())
    boxes = []
    for name, (x1, y1, x2, y2), ignore in objects:
        x1, y1 = x1 - one_based, y1 - one_based
        boxes.append((name, (x1, y1, x2 - x1, y2 - y1), ignore))
    return {"width": width, "height": height, "objects": boxes}


def _write(
    out: Path,
    spool: TextIO,
    names: Sequence[str],
    left_out: list[dict[str, str]],
    one_based: bool,
) -> dict[str, Any]:
    """Write the COCO file from the records of all images, which are streamed."""
    ids = {name: number for number, name in enumerate(names, 1)}
    dropped = [fault for _, record in _records(spool) for fault in _faults(record, ids)]
    swapped = [fault for _, record in _records(spool) for fault in _swapped(record)]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    info = {
        "description": "VOC-style XML files as COCO",
        "one_based": one_based,
        "left_out": left_out,
        "dropped": dropped,
        "swapped": swapped,
    }
    counts = dict.fromkeys(
        ("images", "annotations", "ignored", _NO_AREA, _OUTSIDE, "dropped_of_other_classes"), 0
    )
    images = map(json.dumps, _images(spool))
    annotations = map(json.dumps, _annotations(spool, ids, counts))
    write_coco(out, info, categories, images, annotations, once=True)
    return {
        **counts,
        "categories": len(names),
        "left_out": left_out,
        "dropped": dropped,
        "swapped": swapped,
    }


def _records(spool: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    spool.seek(0)
    return ((number, json.loads(line)) for number, line in enumerate(spool, 1))


def _faults(record: dict[str, Any], ids: Mapping[str, int]) -> Iterator[dict[str, str]]:
    """Name each box of an image that is dropped."""
    size_wh = record["width"], record["height"]
    for name, bbox, _ in record["objects"]:
        if name in ids and (fault := _fault(bbox, record)):
            why = "has no area" if fault == _NO_AREA else f"is outside {size_wh[0]} x {size_wh[1]}"
            reason = f"<object> {name!r}, x, y, width, height {list(bbox)}, {why}"
            yield {"file": f"{record['stem']}.xml", "reason": reason}


def _swapped(record: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Name an image whose boxes do not fit the stated size, but fit that of a turned image."""
    width, height = record["width"], record["height"]
    if looks_swapped((bbox for _, bbox, _ in record["objects"]), (width, height)):
        yield {
            "file": f"{record['stem']}.xml",
            "reason": f"<size> is {width} x {height}, and the boxes fit {height} x {width} alone, "
            "as where EXIF turns a photograph; state the size of the image as it is shown",
        }


def _images(spool: TextIO) -> Iterator[dict[str, Any]]:
    for number, record in _records(spool):
        size = {"width": record["width"], "height": record["height"]}
        yield {"id": number, "file_name": record["file_name"], **size}


def _annotations(
    spool: TextIO, ids: dict[str, int], counts: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Iterate over all objects with area; count them and the others."""
    for image_id, record in _records(spool):
        counts["images"] += 1
        for name, bbox, ignore in record["objects"]:
            if name not in ids:
                counts["dropped_of_other_classes"] += 1
            elif fault := _fault(bbox, record):
                counts[fault] += 1
            else:
                counts["annotations"] += 1
                counts["ignored"] += ignore
                yield {
                    "id": counts["annotations"],
                    "image_id": image_id,
                    "category_id": ids[name],
                    "bbox": bbox,
                    "area": bbox[2] * bbox[3],
                    "iscrowd": int(ignore),
                }
