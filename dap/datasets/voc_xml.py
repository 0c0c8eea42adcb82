"""Convert trees of VOC-style XML files, such as those of ILSVRC DET, to one COCO file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from dap.coco_boxes import OUTSIDE, looks_swapped, why_left_out
from dap.coco_file import parse_coco
from dap.files import files_below, output_file, read_bytes, read_names

from .detection_data import coco_content, write_split
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

    The image of an XML file has the same relative path in ``images``, with any image suffix;
    ``<filename>`` and ``<folder>`` are not read::

        ILSVRC/
        ├── Annotations/DET/train/              annotations
        │   ├── ILSVRC2013_train/n01440764/n01440764_10040.xml …
        │   └── ILSVRC2014_train_0000/ILSVRC2014_train_00000001.xml …
        └── Data/DET/train/                     images
            ├── ILSVRC2013_train/n01440764/n01440764_10040.JPEG …
            └── ILSVRC2014_train_0000/ILSVRC2014_train_00000001.JPEG …

    Corners are converted to boxes by one of two conventions:

    - ILSVRC: corners run from 0 to the width and are the edges of the box: x = xmin,
      w = xmax - xmin. (Its development kit does not define this; common readers agree about 0
      and the width, and otherwise differ by a pixel.)
    - Pascal VOC (``one_based``): pixels are counted from 1 and both corners are inside the box:
      x = xmin - 1, w = xmax - xmin + 1. (mmdet's ``XMLDataset`` takes w = xmax - xmin, one pixel
      less.)

    Objects marked ``difficult`` or ``ignore`` get ``iscrowd`` 1, which mmdet ignores in training
    as it ignores VOC's difficult objects. Images without objects are kept; mmdet's
    ``filter_empty_gt`` drops them in training. Images without an XML file, such as some of
    ILSVRC's negative images, are not included. Image sizes come from the XML files; images are
    not opened. The annotations of all files are held in memory.

    Args:
        annotations: Folder that contains the XML files, at any depth.
        images: Folder of the images with the same layout. File names are relative to it.
        out: COCO file to write. An existing file with the same content is kept.
        classes: Category names in the order of ids 1, 2, …; boxes of other classes are dropped
            and counted. Defaults to all names that occur, sorted (ILSVRC: WordNet ids).
        stems: Paths of the files to convert, relative to ``annotations`` and without ``.xml``;
            duplicates are read once. Defaults to all files.
        one_based: Whether corners follow Pascal VOC's convention instead of ILSVRC's.

    Returns:
        Counts: ``images``, ``annotations``, ``ignored`` (among the annotations), ``categories``,
        and boxes ``dropped_without_area``, ``dropped_outside`` (of the stated image size) and
        ``dropped_of_other_classes``. Lists of ``file`` and ``reason``: ``left_out`` (XML files
        that are malformed, state no size or have no image), ``dropped`` (boxes without area or
        outside) and ``swapped`` (files whose width and height look exchanged). ``alike``: class
        names that differ only in case.

    Raises:
        OSError: If a folder does not exist, or ``out`` is a folder or a file with other content.
        ValueError: If there is no XML file, no file is usable, or no file has an object of the
            classes that has an area and is not ignored.
    """
    out = output_file(out)
    root = Path(annotations)
    if stems is None:
        stems = [os.path.splitext(name)[0] for name in files_below(root, (".xml",))]
    stems = list(dict.fromkeys(stems))
    find_image = ImageFinder(Path(images))
    records: list[_Record] = []
    left_out: list[dict[str, str]] = []
    interval = 0.1 if sys.stderr.isatty() else 30
    for stem in tqdm(stems, unit="xml", mininterval=interval):
        try:
            records.append(_read(root, stem, find_image(stem), one_based))
        except (ValueError, OSError) as error:
            left_out.append({"file": f"{stem}.xml", "reason": f"{error}"})
    if not records:
        first = f"; {left_out[0]['file']}: {left_out[0]['reason']}" if left_out else ""
        raise ValueError(
            f"{root}: expected XML files that have an image in {images}, found {len(stems)} "
            f"XML files and none that is usable{first}"
        )
    occurring = {item["name"] for record in records for item in record.objects}
    names = list(sorted(occurring) if classes is None else classes)
    objects, counts, dropped = _select(records, names)
    if counts["annotations"] == counts["ignored"]:
        raise ValueError(
            f"{root}: none of {len(stems)} XML files has an object to train on, with an area "
            "and not difficult or ignore"
            + (f"; classes: {len(names)}, such as {names[0]}" if names else "")
        )
    content = coco_content(names, [(r.file_name, r.size_wh[::-1]) for r in records], objects)
    faults = {"left_out": left_out, "dropped": dropped, "swapped": _swapped(records)}
    info = {"description": "VOC-style XML files as COCO", "one_based": one_based, **faults}
    write_split(out, content, info)
    alike = alike_names(occurring, names)
    return {**counts, "categories": len(names), **faults, "alike": alike}


def read_classes(path: str | os.PathLike[str]) -> list[str]:
    """Read category names in order, one per line or from a COCO file (``.json``).

    Raises:
        ValueError: If a text file has no name or a name twice, or a ``.json`` file is not COCO.
    """
    if Path(path).suffix.lower() != ".json":
        return read_names(path)
    categories = parse_coco(read_bytes(path), path, ("categories",))["categories"]
    return [str(category["name"]) for category in categories]


class _Record(NamedTuple):
    """Content of an XML file; objects have a name, an xywh box in pixels, and ``iscrowd``."""

    stem: str
    file_name: str
    size_wh: tuple[int, int]
    objects: list[dict[str, Any]]


def _read(root: Path, stem: str, file_name: str, one_based: bool) -> _Record:
    width, height, objects = parse_voc((root / f"{stem}.xml").read_bytes())
    items = []
    for item in objects:
        x1, y1, x2, y2 = item.edges(one_based)
        bbox = [x1, y1, x2 - x1, y2 - y1]
        items.append({"name": item.name, "bbox": bbox, "iscrowd": int(item.ignored)})
    return _Record(stem, file_name, (width, height), items)


def _select(
    records: Sequence[_Record], names: Sequence[str]
) -> tuple[list[list[dict[str, Any]]], dict[str, int], list[dict[str, str]]]:
    """Drop boxes of other classes, without area or outside the image.

    Returns:
        Objects per image as :func:`coco_content` takes them, the counts, and the dropped boxes.
    """
    keys = ("annotations", "ignored", _NO_AREA, _OUTSIDE, "dropped_of_other_classes")
    counts = {"images": len(records), **dict.fromkeys(keys, 0)}
    known = set(names)
    objects, dropped = [], []
    for record in records:
        kept = []
        for item in record.objects:
            name, bbox = item["name"], item["bbox"]
            if name not in known:
                counts["dropped_of_other_classes"] += 1
            elif fault := _fault(bbox, record.size_wh):
                counts[fault] += 1
                width, height = record.size_wh
                why = "has no area" if fault == _NO_AREA else f"is outside {width} x {height}"
                reason = f"<object> {name!r}, x, y, width, height {bbox}, {why}"
                dropped.append({"file": f"{record.stem}.xml", "reason": reason})
            else:
                counts["annotations"] += 1
                counts["ignored"] += item["iscrowd"]
                kept.append(item)
        objects.append(kept)
    return objects, counts, dropped


def _fault(bbox: Sequence[float], size_wh: tuple[int, int]) -> str | None:
    """Reason why an xywh box is dropped; None if it is kept."""
    if min(bbox[2:]) <= 0:
        return _NO_AREA
    return _OUTSIDE if why_left_out(bbox, 1, size_wh) == OUTSIDE else None


def _swapped(records: Sequence[_Record]) -> list[dict[str, str]]:
    """Files whose boxes fit the image only with its width and height exchanged."""
    files = []
    for record in records:
        width, height = record.size_wh
        if looks_swapped((item["bbox"] for item in record.objects), record.size_wh):
            reason = (
                f"<size> is {width} x {height}, and the boxes fit {height} x {width} alone, as "
                "where EXIF rotates a photograph; state the size of the image as displayed"
            )
            files.append({"file": f"{record.stem}.xml", "reason": reason})
    return files
