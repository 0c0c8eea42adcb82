"""Folders in VOC layout as the source of few-shot subsets."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmdet.datasets import VOCDataset
from mmengine.logging import print_log

from dap.coco_boxes import LeftOutBoxes
from dap.datasets.detection_data import coco_content
from dap.datasets.few_shot_source import (
    DetectionSource,
    check_usable,
    find_excluded,
    usable_boxes,
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
    paths = [os.fspath(folder) for folder in folders]
    names = {item["name"] for image in images.values() for item in image.objects}
    classes = VOC_CLASSES if names <= set(VOC_CLASSES) else tuple(sorted(names))
    left_out_boxes = LeftOutBoxes(f"{', '.join(paths)}, {split}")
    for item in images.values():  # one by one, so that the boxes of each are numbered from 1
        single = _content(classes, [item])
        left_out_boxes.add_image(single["images"][0], single["annotations"])
    left_out_boxes.report()
    _warn_of_alike_names(names, paths)
    unwanted = find_excluded({key: image.path for key, image in images.items()}, exclude)
    boxes = zip(images, usable_boxes(_content(classes, images.values())), strict=True)
    return check_usable(
        DetectionSource(
            name=_default_name(list(roots)),
            paths=tuple(paths),
            split=split,
            sha256=digest.hexdigest(),
            classes=classes,
            boxes={key: counts for key, counts in boxes if key not in unwanted},
            excluded={"in_test_list": tests, "in_exclude_files": len(unwanted)},
            files=partial(_subset, images, tuple(roots), classes),
        )
    )


class _Image(NamedTuple):
    """An image and its objects: ``name``, ``bbox`` and ``iscrowd``, see :func:`coco_content`."""

    path: str
    size_hw: tuple[int, int]
    objects: list[dict[str, Any]]


def _content(classes: Sequence[str], images: Collection[_Image]) -> dict[str, Any]:
    """Images as COCO has them."""
    sizes = [(image.path, image.size_hw) for image in images]
    return coco_content(classes, sizes, [image.objects for image in images])


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
    """Read boxes as mmdet's ``XMLDataset`` does, which cuts off decimals."""
    try:
        width, height, objects = parse_voc(content)
    except ValueError as error:
        raise ValueError(
            f"{xml} is no annotation in VOC layout: {error}. Repair the file or remove its line "
            "from the list"
        ) from error
    return _Image(image, (height, width), [item.as_coco(whole=True) for item in objects])


def _image_files(root: Path, stems: Sequence[str]) -> dict[str, str]:
    """Find the image file of each stem; a missing one is assumed to be a .jpg."""
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


def _warn_of_alike_names(names: set[str], folders: Sequence[str]) -> None:
    for alike in alike_names(names, VOC_CLASSES if names - set(VOC_CLASSES) else ()):
        warn(
            f"{', '.join(folders)}: the classes {alike} differ in upper and lower case alone, and "
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
    for key in sorted(drawn):
        folder, _, stem = key.partition("/")
        lists[folder].append(stem + "\n")
    chosen = [images[key] for key in sorted(drawn)]
    others = [image.path for image in chosen if not image.path.endswith(".jpg")]
    if others:
        warn(
            f"{len(others)} of {len(drawn)} images are no .jpg, such as {others[0]}: mmdet's "
            "VOCDataset reads no others, so that the lists serve it no more; train with "
            "annotations.json and dap.CheckedCocoDataset"
        )
    files = {f"{folder}.txt": "".join(lines) for folder, lines in lists.items()}
    return {**files, "annotations.json": json.dumps(_content(classes, chosen)) + "\n"}
