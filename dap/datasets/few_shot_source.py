"""A detection set as few-shot subsets see it: which image has how many boxes of which class."""

from __future__ import annotations

import codecs
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from mmengine.logging import print_log

from dap.coco_boxes import why_left_out
from dap.coco_file import parse_coco
from dap.files import IMAGE_SUFFIXES, read_bytes, split_lines


@dataclass(frozen=True)
class DetectionSource:
    """A detection set, its test images and excluded images left out.

    Attributes:
        name: What subsets are called by default.
        paths: Where it was read, as given.
        split: Name of the VOC list, None for COCO.
        sha256: Of the bytes read: of the COCO file; for VOC, of the sha256 of each list and
            each XML file in the order read.
        classes: All class names, those without a usable box too.
        boxes: Image → class → number of usable boxes, at least 1 where a class stands.
        excluded: Number of images left out, by reason.
        files: Gives, for some of the images, the files that hold just these: name → text.
    """

    name: str
    paths: tuple[str, ...]
    split: str | None
    sha256: str
    classes: tuple[str, ...]
    boxes: Mapping[str, Mapping[str, int]]
    excluded: Mapping[str, int]
    files: Callable[[Collection[str]], dict[str, str]]


def check_usable(source: DetectionSource) -> DetectionSource:
    """Return a source that has a usable box; raise ``ValueError`` for one that has none."""
    if not any(source.boxes.values()):
        reasons = ", ".join(f"{count} {reason}" for reason, count in source.excluded.items())
        raise ValueError(
            f"{', '.join(source.paths)}: none of {len(source.boxes)} images has a usable box, "
            f"after leaving out images ({reasons}). Expected objects that are not difficult, crowd "
            "or ignored, at least one pixel wide and high. Name another set or split"
        )
    return source


def usable_boxes(content: Mapping[str, Any]) -> list[Counter[str]]:
    """Count the usable boxes of each class in each image of a checked COCO file.

    Returns:
        Class → number of boxes, of each image in the order of the file.
    """
    images = {image["id"]: image for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    counts = {number: Counter[str]() for number in images}
    for item in content["annotations"]:
        image = images[item["image_id"]]
        size_wh = image["width"], image["height"]
        left_out = why_left_out(item["bbox"], item["area"], size_wh, item.get("ignore"))
        if left_out is None and not item["iscrowd"]:
            counts[item["image_id"]][names[item["category_id"]]] += 1
    return list(counts.values())


def find_excluded(paths: Mapping[str, str], exclude: Sequence[str | os.PathLike[str]]) -> set[str]:
    """Find the images that files name.

    Args:
        paths: Image → path of its file.
        exclude: Text files of ids, file names or paths, one per line, or COCO files.
    """
    unwanted: set[str] = set()
    for file in exclude:
        content = read_bytes(file)
        if content.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
            names = _coco_file_names(content, file)
        else:
            names = split_lines(content, file)
        matches = images_named(paths, names)
        if not matches:
            such = f", such as {names[0]}," if names else ""
            warn(f"{file}: none of the {len(names)} images that it names{such} is in the set")
        unwanted |= matches
    return unwanted


def _coco_file_names(content: bytes, path: str | os.PathLike[str]) -> list[str]:
    images = parse_coco(content, path, ("images",))["images"]
    try:
        return [str(image["file_name"]) for image in images]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: an image is malformed ({error!r}); expected images with file_name"
        ) from error


def images_named(paths: Mapping[str, str], names: Iterable[str]) -> set[str]:
    """Find the images that are meant by ids, file names or paths.

    A name is an image's if it is its id, or the end of its path, or if its path is the end of
    the name; the suffix may be missing: ``000005``, ``000005.jpg``, ``JPEGImages/000005.jpg``.

    Args:
        paths: Image → path of its file.
        names: What to find.

    Returns:
        The images found.
    """
    by_stem = defaultdict(list)
    for image, path in paths.items():
        by_stem[_parts(path)[0]].append((image, _parts(path)))
    matches = {name for name in names if name in paths}
    for parts in map(_parts, names):
        for image, path_parts in by_stem.get(parts[0], ()):
            if all(a == b for a, b in zip(parts, path_parts, strict=False)):
                matches.add(image)
    return matches


def _parts(name: str) -> tuple[str, ...]:
    """Split a path, from the file on upwards, the suffix cut off."""
    path = PurePosixPath(name.replace("\\", "/"))
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    return (stem, *reversed(path.parent.parts))


def warn(message: str) -> None:
    """Log a warning."""
    print_log(message, "current", logging.WARNING)
