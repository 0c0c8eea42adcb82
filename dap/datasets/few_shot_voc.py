"""Folders in VOC layout as the source of few-shot subsets."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from mmdet.datasets import VOCDataset

from dap.datasets.few_shot_source import (
    DetectionSource,
    check_usable,
    find_excluded,
    warn,
)
from dap.files import read_bytes, split_lines

VOC_CLASSES: tuple[str, ...] = VOCDataset.METAINFO["classes"]  # sorted by name


def read_voc(
    folders: Sequence[str | os.PathLike[str]],
    split: str = "trainval",
    exclude: Sequence[str | os.PathLike[str]] = (),
) -> DetectionSource:
    """Read one list of each of several folders in VOC layout, and the XML files it names.

    A box is usable if it is not ``difficult`` and at least one pixel wide and high as mmdet
    measures it. Images that ``ImageSets/Main/test.txt`` of the same folder names are left out.
    An image is called ``{folder}/{id}``, such as ``VOC2007/000005``.

    Args:
        folders: Such as ``data/VOCdevkit/VOC2007``. Their names must differ.
        split: Name of the list in ``ImageSets/Main``.
        exclude: Text files or COCO files with names of images to leave out.

    Returns:
        The set. Its files are one list per folder, ``{folder}.txt``, empty if no image is of it,
        and all of it as ``annotations.json``: file names below the folder that holds the folders,
        such as ``VOC2007/JPEGImages/000005.jpg``; boxes as mmdet's ``VOCDataset`` has them
        (xmin - 1, ymin - 1, xmax - xmin, ymax - ymin), difficult ones as crowds, which mmdet
        ignores in training just so; categories sorted by name. If all that occur are among VOC's
        twenty, the categories are these twenty, numbered as mmdet numbers them; to train on some
        of them, ``CheckedCocoDataset`` takes ``allow_unused=True``.

    Raises:
        FileNotFoundError: If a list, an XML file or a file of ``exclude`` is missing.
        ValueError: If a file is malformed, or no usable box is left.
    """
    roots = {os.path.basename(os.path.abspath(folder)): Path(folder) for folder in folders}
    if not folders or len(roots) < len(folders):
        raise ValueError(
            f"voc: found {[os.fspath(folder) for folder in folders]}, expected folders with "
            "different names: each gives its name to a list. Rename or link one of them"
        )
    digest = hashlib.sha256()
    images: dict[str, _Image] = {}
    tests = 0
    for name, root in roots.items():
        ids, left_out = _ids(root, split, digest.update)
        tests += left_out
        for image in ids:
            content = _read_xml(root, image, split)
            digest.update(hashlib.sha256(content).digest())
            images[f"{name}/{image}"] = _parse(content, root / "Annotations" / f"{image}.xml")
    unwanted = find_excluded({image: _file_name(image) for image in images}, exclude)
    found = {label for image in images.values() for label, *_ in image.objects}
    classes = VOC_CLASSES if found <= set(VOC_CLASSES) else tuple(sorted(found))
    return check_usable(
        DetectionSource(
            name=_default_name(list(roots)),
            paths=tuple(os.fspath(folder) for folder in folders),
            split=split,
            sha256=digest.hexdigest(),
            classes=classes,
            boxes={name: _count(image) for name, image in images.items() if name not in unwanted},
            excluded={"in_test_list": tests, "in_exclude_files": len(unwanted)},
            files=partial(_subset, images, tuple(roots), classes),
        )
    )


class _Image(NamedTuple):
    """What an XML file says: size in pixels, and class, (x, y, w, h), difficult of each object."""

    width: int
    height: int
    objects: list[tuple[str, tuple[int, int, int, int], bool]]


def _ids(root: Path, split: str, update: Callable[[bytes], object]) -> tuple[list[str], int]:
    """Read the ids of a split, without those of test.txt, and how many these were."""
    lists = root / "ImageSets" / "Main"
    path = lists / f"{split}.txt"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in lists.glob("*.txt"))[:8]) or "none"
        raise FileNotFoundError(
            f"{path}: no such file; expected the list of the split {split!r} in VOC layout. "
            f"Splits there: {there}. Name another folder (--voc) or split (--split)"
        )
    contents = [read_bytes(file) for file in (path, lists / "test.txt") if file.is_file()]
    for content in contents:
        update(hashlib.sha256(content).digest())
    ids = dict.fromkeys(split_lines(contents[0], path))
    test = set(split_lines(contents[1], lists / "test.txt")) if len(contents) > 1 else set()
    if left_out := len(ids.keys() & test):
        warn(
            f"{path}: {left_out} of {len(ids)} images are also in {lists / 'test.txt'}; test "
            "images are never drawn"
        )
    return [image for image in ids if image not in test], left_out


def _read_xml(root: Path, image: str, split: str) -> bytes:
    path = root / "Annotations" / f"{image}.xml"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file, but the list ImageSets/Main/{split}.txt has a line {image!r}; "
            "expected one XML file per line. Add the file or remove the line"
        )
    return read_bytes(path)


def _parse(content: bytes, path: Path) -> _Image:
    """Read boxes as mmdet's ``XMLDataset`` does."""
    try:
        root = ElementTree.fromstring(content)
        width, height = (_number(root, f"size/{side}") for side in ("width", "height"))
        if min(width, height) < 1:
            raise ValueError(f"a size of {width} x {height}")
        objects = []
        for item in root.findall("object"):
            name = item.findtext("name", "").strip()
            if not name:
                raise ValueError("an object without name")
            x1, y1, x2, y2 = (
                _number(item, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")
            )
            difficult = bool(int(item.findtext("difficult", "0")))
            objects.append((name, (x1 - 1, y1 - 1, x2 - x1, y2 - y1), difficult))
    except (ElementTree.ParseError, ValueError, OverflowError, LookupError) as error:
        raise ValueError(
            f"{path} is no annotation in VOC layout: {error}. Expected a <size> with <width> and "
            "<height>, <object>s with <name>, <difficult> and a <bndbox> of four numbers. Repair "
            "the file or remove its line from the list"
        ) from error
    return _Image(width, height, objects)


def _number(element: ElementTree.Element, path: str) -> int:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"no <{path}>")
    return int(float(text))


def _count(image: _Image) -> Counter[str]:
    """Count the usable boxes of each class."""
    return Counter(
        name for name, box, difficult in image.objects if not difficult and min(box[2:]) >= 1
    )


def _file_name(image: str) -> str:
    folder, _, stem = image.partition("/")
    return f"{folder}/JPEGImages/{stem}.jpg"


def _default_name(folders: Sequence[str]) -> str:
    years = [re.fullmatch(r"VOC\d\d(\d\d)", folder) for folder in folders]
    if all(years):
        return "voc" + "".join(year[1] for year in years if year)
    return "-".join(folder.lower() for folder in folders)


def _subset(
    images: Mapping[str, _Image],
    folders: Sequence[str],
    classes: Sequence[str],
    drawn: Collection[str],
) -> dict[str, str]:
    """Write lists and a COCO file of the images drawn."""
    lists: dict[str, list[str]] = {folder: [] for folder in folders}
    categories = {name: number for number, name in enumerate(classes, 1)}
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    for number, key in enumerate(sorted(drawn), 1):
        folder, _, stem = key.partition("/")
        lists[folder].append(stem + "\n")
        width, height, objects = images[key]
        content["images"].append(
            {"id": number, "file_name": _file_name(key), "width": width, "height": height}
        )
        for name, box, difficult in objects:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": categories[name],
                    "bbox": list(box),
                    "area": box[2] * box[3],
                    "iscrowd": int(difficult),
                }
            )
    categories_json = [{"id": number, "name": name} for name, number in categories.items()]
    files = {f"{folder}.txt": "".join(lines) for folder, lines in lists.items()}
    return {
        **files,
        "annotations.json": json.dumps({"categories": categories_json} | content) + "\n",
    }
