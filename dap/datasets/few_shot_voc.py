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

from mmdet.datasets import VOCDataset
from mmengine.logging import print_log

from dap.coco_boxes import LeftOutBoxes, why_left_out
from dap.datasets.few_shot_source import (
    DetectionSource,
    check_usable,
    find_excluded,
    warn,
)
from dap.datasets.voc_files import ImageFinder, alike_names, parse_voc, split_file
from dap.files import read_bytes, split_lines

VOC_CLASSES: tuple[str, ...] = VOCDataset.METAINFO["classes"]  # sorted by name


def read_voc(
    folders: Sequence[str | os.PathLike[str]],
    split: str = "trainval",
    exclude: Sequence[str | os.PathLike[str]] = (),
) -> DetectionSource:
    """Read one list of each of several folders in VOC layout, and the XML files it names.

    Annotations are read by :func:`dap.datasets.voc_files.parse_voc`; images may be of any kind that
    OpenCV reads. A box is usable if it is not ``difficult``, at least one pixel wide and high as
    mmdet measures it, and not outside of its image; others are counted and named in a warning.
    Images that ``ImageSets/Main/test.txt`` of the same folder names are left out.
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
        ValueError: If a file is malformed, an image is there twice with different suffixes, or no
            usable box is left.
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
        files = _image_files(root, ids)
        for image in ids:
            content = _read_xml(root, image, split)
            digest.update(hashlib.sha256(content).digest())
            xml = root / "Annotations" / f"{image}.xml"
            images[f"{name}/{image}"] = _parse(content, xml, f"{name}/JPEGImages/{files[image]}")
    _report(images, split, [os.fspath(folder) for folder in folders])
    unwanted = find_excluded({key: image.path for key, image in images.items()}, exclude)
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
    """Path of the image, its size in pixels, and class, (x, y, w, h), difficult of each object."""

    path: str
    width: int
    height: int
    objects: list[tuple[str, tuple[int, int, int, int], bool]]


def _ids(root: Path, split: str, update: Callable[[bytes], object]) -> tuple[list[str], int]:
    """Read the ids of a split, without those of test.txt, and how many these were."""
    path = split_file(root, split)
    lists = path.parent
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


def _parse(content: bytes, xml: Path, image: str) -> _Image:
    """Read boxes as mmdet's ``XMLDataset`` does."""
    try:
        width, height, objects = parse_voc(content)
    except ValueError as error:
        raise ValueError(
            f"{xml} is no annotation in VOC layout: {error}. Repair the file or remove its line "
            "from the list"
        ) from error
    boxes = []
    for name, corners, difficult in objects:
        x1, y1, x2, y2 = map(int, corners)
        boxes.append((name, (x1 - 1, y1 - 1, x2 - x1, y2 - y1), difficult))
    return _Image(image, width, height, boxes)


def _image_files(root: Path, stems: Sequence[str]) -> dict[str, str]:
    """Find the image file of each stem; one that is not there is taken to be a .jpg."""
    folder = root / "JPEGImages"
    if not folder.is_dir():
        print_log(f"{folder} is not there: the images are taken to be .jpg files", "current")
        return {stem: f"{stem}.jpg" for stem in stems}
    find = ImageFinder(folder)
    missing = [stem for stem in stems if not find.matches(stem)]
    if missing:
        warn(
            f"{folder}: {len(missing)} of {len(stems)} images are not there, such as {missing[0]}; "
            "they are taken to be .jpg files. Training stops where one is still not there"
        )
    absent = set(missing)
    return {stem: f"{stem}.jpg" if stem in absent else find(stem) for stem in stems}


def _count(image: _Image) -> Counter[str]:
    """Count the usable boxes of each class."""
    return Counter(
        name
        for name, box, difficult in image.objects
        if not difficult and why_left_out(box, box[2] * box[3], (image.width, image.height)) is None
    )


def _report(images: Mapping[str, _Image], split: str, folders: Sequence[str]) -> None:
    """Name the files of boxes that are not trained on, and classes that look like another."""
    boxes = LeftOutBoxes(f"{', '.join(folders)}, {split}")
    for image in images.values():
        size = {"file_name": image.path, "width": image.width, "height": image.height}
        items = [
            {"id": number, "bbox": list(box), "area": box[2] * box[3]}
            for number, (_, box, _) in enumerate(image.objects, 1)
        ]
        boxes.add_image(size, items)
    boxes.report()
    occurring = {label for image in images.values() for label, *_ in image.objects}
    for names in alike_names(occurring, VOC_CLASSES if occurring - set(VOC_CLASSES) else ()):
        warn(
            f"{', '.join(folders)}: the classes {names} differ in upper and lower case alone, and "
            "are taken for different ones. Give them one spelling if they are the same"
        )


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
        path, width, height, objects = images[key]
        content["images"].append(
            {"id": number, "file_name": path, "width": width, "height": height}
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
    others = [images[key].path for key in sorted(drawn) if not images[key].path.endswith(".jpg")]
    if others:
        warn(
            f"{len(others)} of {len(drawn)} images are no .jpg, such as {others[0]}: mmdet's "
            "VOCDataset reads no others, so that the lists serve it no more; train with "
            "annotations.json and dap.CheckedCocoDataset"
        )
    files = {f"{folder}.txt": "".join(lines) for folder, lines in lists.items()}
    return {
        **files,
        "annotations.json": json.dumps({"categories": categories_json} | content) + "\n",
    }
