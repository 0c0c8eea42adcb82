"""A detection set as the source of few-shot subsets: number of boxes per image and class."""

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
    """A detection set without its test images and excluded images.

    Attributes:
        name: Default name of its subsets.
        paths: Paths that it was read from, as passed by the user.
        split: Name of the VOC list, None for COCO.
        sha256: SHA-256 of the bytes read: of the COCO file; for VOC, of the SHA-256 of each list
            and each XML file in the order read.
        classes: All class names, including classes without a usable box.
        boxes: Image → class → number of usable boxes, without classes that have none.
        excluded: Number of images left out, by reason.
        files: Function that returns the annotation files of some of the images: name → text.
    """

    name: str
    paths: tuple[str, ...]
    split: str | None
    sha256: str
    classes: tuple[str, ...]
    boxes: Mapping[str, Mapping[str, int]]
    excluded: Mapping[str, int]
    files: Callable[[Collection[str]], dict[str, str]]


def make_source(
    content: Mapping[str, Any],
    images: Iterable[str],
    exclude: Sequence[str | os.PathLike[str]],
    *,
    in_test_list: int = 0,
    **attributes: Any,
) -> DetectionSource:
    """Make a source of a checked COCO content.

    Args:
        content: Lists ``images``, ``annotations`` and ``categories``.
        images: Key of each image in the source, in the order of ``content``.
        exclude: Text files or COCO files with names of images to leave out.
        in_test_list: Number of images that were left out because a test list names them.
        **attributes: ``name``, ``paths``, ``split``, ``sha256`` and ``files`` of the source.

    Raises:
        OSError: If a file of ``exclude`` cannot be read.
        ValueError: If such a file is malformed, or no usable box is left.
    """
    names = (image["file_name"] for image in content["images"])
    files = dict(zip(images, names, strict=True))
    unwanted = find_excluded(files, exclude)
    boxes = zip(files, usable_boxes(content), strict=True)
    source = DetectionSource(
        classes=tuple(category["name"] for category in content["categories"]),
        boxes={image: counts for image, counts in boxes if image not in unwanted},
        excluded={"in_test_list": in_test_list, "in_exclude_files": len(unwanted)},
        **attributes,
    )
    if not any(source.boxes.values()):
        reasons = ", ".join(f"{count} {reason}" for reason, count in source.excluded.items())
        raise ValueError(
            f"{', '.join(source.paths)}: none of {len(source.boxes)} images has a usable box, "
            f"after leaving out images ({reasons}). Expected objects that are not difficult, crowd "
            "or ignored, at least one pixel wide and high. Name another set or split"
        )
    return source


def usable_boxes(content: Mapping[str, Any]) -> list[Counter[str]]:
    """Count the usable boxes per image and class of a checked COCO content.

    Returns:
        Class → number of boxes, per image in the order of ``content``.
    """
    images = {image["id"]: image for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    counts = {image_id: Counter[str]() for image_id in images}
    for item in content["annotations"]:
        image = images[item["image_id"]]
        size_wh = image["width"], image["height"]
        left_out = why_left_out(item["bbox"], item["area"], size_wh, item.get("ignore"))
        if left_out is None and not item["iscrowd"]:
            counts[item["image_id"]][names[item["category_id"]]] += 1
    return list(counts.values())


def find_excluded(paths: Mapping[str, str], exclude: Sequence[str | os.PathLike[str]]) -> set[str]:
    """Find the images that some files name.

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
            example = f", such as {names[0]}," if names else ""
            warn(f"{file}: none of the {len(names)} images that it names{example} is in the set")
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
    """Find images by their ids, file names or paths.

    A name refers to an image if it is the id of the image or the end of its path, or if the path
    is the end of the name. The suffix is optional: ``000005``, ``000005.jpg``,
    ``JPEGImages/000005.jpg``.

    Args:
        paths: Image → path of its file.
        names: Names to find.

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
    """Components of a path from the file upwards, without the suffix of an image."""
    path = PurePosixPath(name.replace("\\", "/"))
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    return (stem, *reversed(path.parent.parts))


def warn(message: str) -> None:
    """Log a warning."""
    print_log(message, "current", logging.WARNING)
