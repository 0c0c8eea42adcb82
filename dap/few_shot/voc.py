"""Folders in VOC layout as the source of few-shot subsets."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.logging import print_log

from dap.coco_boxes import LeftOutBoxes
from dap.datasets.detection_data import coco_content
from dap.datasets.voc_files import VOC_CLASSES, ImageFinder, alike_names, parse_voc_file, split_file
from dap.files import read_bytes, split_lines

from .source import DetectionSource, make_source, warn


def read_voc(
    folders: Sequence[str | os.PathLike[str]],
    split: str = "trainval",
    exclude: Sequence[str | os.PathLike[str]] = (),
) -> DetectionSource:
    """Read one list per folder in VOC layout, and the XML files that it names.

    Annotations are read by :func:`dap.datasets.voc_files.parse_voc`; images may have any suffix
    that OpenCV reads. A box is usable if it is not ``difficult``, at least one pixel wide and high
    as mmdet measures it, and not outside its image; other boxes are counted and named in a
    warning. Images that ``ImageSets/Main/test.txt`` of the same folder names are left out.
    The key of an image is ``{folder}/{id}``, such as ``VOC2007/000005``.

    Args:
        folders: Such as ``data/VOCdevkit/VOC2007``. Their names must differ.
        split: Name of the list in ``ImageSets/Main``.
        exclude: Text files or COCO files with names of images to leave out.

    Returns:
        The source. Its files are a list per folder, ``{folder}.txt``, which is empty if no image
        comes from that folder, and ``annotations.json`` with all images. There, file names are
        relative to the parent of the folders, such as ``VOC2007/JPEGImages/000005.jpg``; boxes
        are those of mmdet's ``VOCDataset`` (xmin - 1, ymin - 1, xmax - xmin, ymax - ymin);
        difficult objects are crowds, which mmdet ignores in training likewise; categories are
        sorted by name. If all names that occur are among VOC's twenty, the categories are these
        twenty, in mmdet's order; to train on fewer, set ``allow_unused=True`` of
        ``CheckedCocoDataset``.

    Raises:
        FileNotFoundError: If a list, an XML file or a file of ``exclude`` is missing.
        ValueError: If a file is malformed, an image exists with two suffixes, or no usable box is
            left.
    """
    paths = tuple(os.fspath(folder) for folder in folders)
    roots = {os.path.basename(os.path.abspath(path)): Path(path) for path in paths}
    if not folders or len(roots) < len(folders):
        raise ValueError(
            f"voc: found {list(paths)}, expected folders with different names: each gives its name "
            "to a list. Rename or link one of them"
        )
    digest = hashlib.sha256()
    images: dict[str, _Image] = {}
    in_test_list = 0
    for name, root in roots.items():
        lists, ids, count = _read_lists(root, split)
        in_test_list += count
        files = _image_files(root, ids)
        contents = {image: _read_xml(root, image, split) for image in ids}
        for content in (*lists, *contents.values()):
            digest.update(hashlib.sha256(content).digest())
        for image, content in contents.items():
            annotation = parse_voc_file(content, root / "Annotations" / f"{image}.xml")
            size_hw = annotation.height, annotation.width
            objects = [item.as_coco(whole=True) for item in annotation.objects]  # mmdet truncates
            path = f"{name}/JPEGImages/{files[image]}"
            images[f"{name}/{image}"] = _Image(path, size_hw, objects)
    names = {item["name"] for image in images.values() for item in image.objects}
    classes = VOC_CLASSES if names <= set(VOC_CLASSES) else tuple(sorted(names))
    left_out_boxes = LeftOutBoxes(f"{', '.join(paths)}, {split}")
    for image_content in images.values():  # separately, to number the boxes per image
        single = _content(classes, [image_content])
        left_out_boxes.add_image(single["images"][0], single["annotations"])
    left_out_boxes.report()
    _warn_of_alike_names(names, paths)
    return make_source(
        _content(classes, images.values()),
        images,
        exclude,
        in_test_list=in_test_list,
        name=_default_name(list(roots)),
        paths=paths,
        split=split,
        sha256=digest.hexdigest(),
        files=partial(_subset, images, tuple(roots), classes),
    )


class _Image(NamedTuple):
    """An image and its objects: ``name``, ``bbox`` and ``iscrowd``, see :func:`coco_content`."""

    path: str
    size_hw: tuple[int, int]
    objects: list[dict[str, Any]]


def _content(classes: Sequence[str], images: Iterable[_Image]) -> dict[str, Any]:
    images = list(images)
    sizes = [(image.path, image.size_hw) for image in images]
    return coco_content(classes, sizes, [image.objects for image in images])


def _read_lists(root: Path, split: str) -> tuple[list[bytes], list[str], int]:
    """Read the list of a split and the test list.

    Returns:
        Contents of the lists, ids of the split that the test list does not name, and the number
        of ids that it names.
    """
    path = split_file(root, split)
    test_path = path.with_name("test.txt")
    contents = [read_bytes(file) for file in (path, test_path) if file.is_file()]
    ids = dict.fromkeys(split_lines(contents[0], path))
    test = set(split_lines(contents[1], test_path)) if len(contents) > 1 else set()
    if count := len(ids.keys() & test):
        warn(
            f"{path}: {count} of {len(ids)} images are also in {test_path}; test images are never "
            "drawn"
        )
    return contents, [image for image in ids if image not in test], count


def _read_xml(root: Path, image: str, split: str) -> bytes:
    path = root / "Annotations" / f"{image}.xml"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file, but the list ImageSets/Main/{split}.txt has a line {image!r}; "
            "expected one XML file per line. Add the file or remove the line"
        )
    return read_bytes(path)


def _image_files(root: Path, stems: Sequence[str]) -> dict[str, str]:
    """Find the image file per stem; missing files are assumed to be ``.jpg``."""
    folder = root / "JPEGImages"
    if not folder.is_dir():
        print_log(f"{folder} is not there: the images are taken to be .jpg files", "current")
        return {stem: f"{stem}.jpg" for stem in stems}
    find = ImageFinder(folder)
    missing = [stem for stem in stems if not find.matches(stem)]
    if missing:
        warn(
            f"{folder}: {len(missing)} of {len(stems)} images are not there, such as {missing[0]}; "
            "they are taken to be .jpg files. Training will stop at the first missing file"
        )
    absent = set(missing)
    return {stem: f"{stem}.jpg" if stem in absent else find(stem) for stem in stems}


def _warn_of_alike_names(names: set[str], folders: Sequence[str]) -> None:
    for alike in alike_names(names, VOC_CLASSES if names - set(VOC_CLASSES) else ()):
        warn(
            f"{', '.join(folders)}: the classes {alike} differ in upper and lower case alone, and "
            "are treated as different classes. Give them one spelling if they are the same"
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
    """Make the lists and the COCO file of the drawn images."""
    lists: dict[str, list[str]] = {folder: [] for folder in folders}
    for key in sorted(drawn):
        folder, _, stem = key.partition("/")
        lists[folder].append(stem + "\n")
    chosen = [images[key] for key in sorted(drawn)]
    others = [image.path for image in chosen if not image.path.endswith(".jpg")]
    if others:
        warn(
            f"{len(others)} of {len(drawn)} images are no .jpg, such as {others[0]}: mmdet's "
            "VOCDataset reads only .jpg files, so the lists cannot be used with it; train with "
            "annotations.json and dap.CheckedCocoDataset"
        )
    files = {f"{folder}.txt": "".join(lines) for folder, lines in lists.items()}
    return {**files, "annotations.json": json.dumps(_content(classes, chosen)) + "\n"}
