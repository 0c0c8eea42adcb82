"""Read, check and normalise COCO files of any origin.

Entries with an unambiguous meaning are repaired and counted in one warning. For invalid entries, an
error names the file, the entry, what was expected, and the cure.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mmengine.logging import print_log

from .files import read_bytes

LISTS = ("images", "annotations", "categories")
_ANNOTATION_IDS = "missing or duplicate ids of annotations, so that all are renumbered"
_FLAGS: dict[object, int] = {None: 0, "": 0, "0": 0, "1": 1, "false": 0, "true": 1}


@dataclass(frozen=True)
class CocoFile:
    """A COCO file with consistent entries.

    Attributes:
        path: The file.
        sha256: Hash of its bytes.
        content: The parsed file. Image and category ids in annotations are equal to the ids of
            the entries in value and type. Each annotation has a unique id, a finite ``bbox``
            (x, y, width, height in pixels), an ``area``, and ``iscrowd`` 0 or 1. File names have
            forward slashes.
        repaired: Descriptions of the repairs.
    """

    path: str
    sha256: str
    content: dict[str, Any]
    repaired: tuple[str, ...]


def read_coco_file(
    path: str | os.PathLike[str], lists: Sequence[str] = LISTS, log: bool = True
) -> CocoFile:
    """Read and check a COCO file; repair entries whose meaning is unambiguous.

    The repairs are: a byte-order mark is removed; ids of different types become equal (``1``,
    ``1.0`` and ``"1"`` are the same id); annotations are renumbered if ids are missing or
    duplicate, since nothing refers to them; a missing or null ``area`` becomes width x height;
    flags (``iscrowd``, ``ignore``) that are null or words become 0 or 1; backslashes in file names
    become slashes.

    Args:
        path: The file.
        lists: Lists that the file must have. Other missing lists become empty.
        log: Whether to log the repairs as a warning.

    Returns:
        The checked file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no COCO file; if two images or categories have the same id, or two
            categories the same name; if an annotation has an unknown image or category, or no
            box of four finite numbers; if an image has no size.
    """
    raw = read_bytes(path)
    content = parse_coco(raw, path, lists)
    checks = _Checks(os.fspath(path))
    content |= {key: content.get(key, []) for key in LISTS}
    images = checks.images(content["images"])
    categories = checks.categories(content["categories"])
    checks.annotations(content["annotations"], images, categories)
    repaired = checks.repaired()
    if repaired and log:
        print_log(f"{path}: repaired in memory: {'; '.join(repaired)}", "current", logging.WARNING)
    return CocoFile(os.fspath(path), hashlib.sha256(raw).hexdigest(), content, repaired)


def parse_coco(
    content: bytes, path: str | os.PathLike[str], lists: Sequence[str]
) -> dict[str, Any]:
    """Parse a COCO file without checking its entries.

    Args:
        content: Content of the file.
        path: Name of the file, for errors.
        lists: Lists that it must have.

    Raises:
        ValueError: If it is no json in UTF-8, or a list is missing.
    """
    try:
        parsed = json.loads(content.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(
            f"{path} is no json in UTF-8: {error}. Expected a COCO file; check whether the "
            "download is complete and the encoding is UTF-8"
        ) from error
    content_dict = parsed if isinstance(parsed, dict) else {}
    missing = [key for key in lists if not isinstance(content_dict.get(key), list)]
    optional = [key for key in LISTS if key not in lists]
    missing += [key for key in optional if not isinstance(content_dict.get(key, []), list)]
    if missing or not isinstance(parsed, dict):
        raise ValueError(
            f"{path} has no list of {', '.join(missing)}; expected a COCO detection file with "
            f"lists of {', '.join(lists)}"
        )
    return parsed


def canonical_id(value: Any) -> int | str | None:
    """Convert an id to its canonical value: 1, 1.0 and ``"1"`` become 1; None for an invalid id."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        text = value.strip()
        number = text.removeprefix("-")
        plain = number.isascii() and number.isdigit() and str(int(number)) == number
        return int(text) if plain and text != "-0" else (text or None)
    return value if isinstance(value, int) else None


class _Checks:
    """Checks the lists of a file and repairs their entries in place.

    Args:
        path: The file, for the messages.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._repairs: dict[str, tuple[int, str]] = {}  # number, and first entry

    def repaired(self) -> tuple[str, ...]:
        """Describe the repairs, each with their number and the first entry."""
        items = self._repairs.items()
        return tuple(f"{what} ({count}, such as {first})" for what, (count, first) in items)

    def images(self, items: list[Any]) -> dict[int | str, Any]:
        """Check the images; return the ids by canonical id."""
        ids = self._ids("image", items)
        for number, item in enumerate(items):
            name = item.get("file_name")
            if not isinstance(name, str) or not name:
                self._refuse("image", number, item, f"file_name {name!r}", "a path")
            for side in ("width", "height"):
                self._check_side(number, item, side)
            if "\\" in name:
                item["file_name"] = name.replace("\\", "/")
                self._count_repair("backslashes in file names", name)
        return ids

    def categories(self, items: list[Any]) -> dict[int | str, Any]:
        """Check the categories; return the ids by canonical id."""
        ids = self._ids("category", items)
        names: dict[str, Any] = {}
        for number, item in enumerate(items):
            name = item.get("name")
            if not isinstance(name, str) or not name.strip():
                self._refuse("category", number, item, f"name {name!r}", "a name")
            if name in names:
                raise ValueError(
                    f"{self.path}: categories {names[name]!r} and {item['id']!r} have the same "
                    f"name {name!r}, by which mmdet finds them; expected different names. Rename "
                    "one, or give the annotations of both the same category_id"
                )
            names[name] = item["id"]
        return ids

    def annotations(
        self, items: list[Any], images: Mapping[int | str, Any], categories: Mapping[Any, Any]
    ) -> None:
        """Check the annotations."""
        kinds = (("image_id", "image", images), ("category_id", "category", categories))
        seen: set[int | str] = set()
        for number, item in enumerate(items):
            if not isinstance(item, dict):
                self._refuse("annotation", number, item, "no object", "an object")
            for key, kind, known in kinds:
                self._check_reference(number, item, key, kind, known, items)
            self._check_box(number, item)
            for flag in ("iscrowd", "ignore"):
                self._check_flag(number, item, flag)
            annotation_id = canonical_id(item.get("id"))
            if annotation_id is None or annotation_id in seen:
                self._count_repair(_ANNOTATION_IDS, _entry("annotation", number, item))
            else:
                seen.add(annotation_id)
        if len(seen) < len(items):
            for number, item in enumerate(items, 1):
                item["id"] = number

    def _ids(self, kind: str, items: list[Any]) -> dict[int | str, Any]:
        ids: dict[int | str, Any] = {}
        for number, item in enumerate(items):
            key = canonical_id(item.get("id")) if isinstance(item, dict) else None
            if key is None:
                found = f"id {item.get('id')!r}" if isinstance(item, dict) else "no object"
                self._refuse(kind, number, item, found, "an object with a whole number as id")
            if key in ids:
                spelt = "" if ids[key] == item["id"] else f" (as {ids[key]!r} and {item['id']!r})"
                raise ValueError(
                    f"{self.path}: two entries of {kind} have the same id {key!r}{spelt}; expected "
                    "a different one each. Renumber them, or remove one of them"
                )
            ids[key] = item["id"]
        return ids

    def _check_side(self, number: int, item: dict[str, Any], side: str) -> None:
        value = item.get(side)
        if isinstance(value, float) and value.is_integer():
            value = item[side] = int(value)
        if type(value) is not int or value < 1:
            self._refuse("image", number, item, f"{side} {value!r}", "whole pixels, at least 1")

    def _check_reference(
        self,
        number: int,
        item: dict[str, Any],
        key: str,
        kind: str,
        known: Mapping[Any, Any],
        items: list[Any],
    ) -> None:
        value = item.get(key)
        declared = known.get(canonical_id(value))
        if declared is None:
            ids = (canonical_id(i.get(key)) for i in items if isinstance(i, dict))
            count = sum(1 for i in ids if i not in known)
            self._refuse(
                "annotation",
                number,
                item,
                f"unknown {key} {value!r}, as {count} of {len(items)} annotations have",
                f"the id of one of {len(known)} entries of {kind}; add it, or remove these "
                "annotations",
            )
        if type(declared) is not type(value) or declared != value:
            item[key] = declared
            self._count_repair(f"{key} of another type than the id", f"{value!r} for {declared!r}")

    def _check_box(self, number: int, item: dict[str, Any]) -> None:
        box = item.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
            self._refuse(
                "annotation", number, item, f"bbox {box!r}", "4 numbers, x, y, width and height"
            )
        area = item.get("area")
        if area is None or (isinstance(area, float) and math.isnan(area)):
            item["area"] = max(box[2], 0) * max(box[3], 0)
            self._count_repair("area, from width and height", _entry("annotation", number, item))
        elif not _is_finite(area):
            self._refuse("annotation", number, item, f"area {area!r}", "a number of pixels")

    def _check_flag(self, number: int, item: dict[str, Any], flag: str) -> None:
        if flag not in item and flag != "iscrowd":
            return
        value = item.get(flag)
        if isinstance(value, bool | int | float) and value in (0, 1):
            item[flag] = int(value)
            return
        key = value.strip().lower() if isinstance(value, str) else value
        if not (key is None or isinstance(key, str)) or key not in _FLAGS:
            self._refuse("annotation", number, item, f"{flag} {value!r}", "0 or 1")
        item[flag] = _FLAGS[key]
        if value is not None:
            self._count_repair(flag, f"{value!r} for {item[flag]}")

    def _count_repair(self, what: str, example: str) -> None:
        count, first = self._repairs.get(what, (0, example))
        self._repairs[what] = (count + 1, first)

    def _refuse(self, kind: str, number: int, item: Any, found: str, expected: str) -> NoReturn:
        raise ValueError(
            f"{self.path}: {_entry(kind, number, item)}: {found}; expected {expected}. Repair or "
            "remove the entry"
        )


def _entry(kind: str, number: int, item: Any) -> str:
    """Describe an entry by its id or, without one, by its index."""
    item_id = item.get("id") if isinstance(item, dict) else None
    plural = {"category": "categories"}.get(kind, f"{kind}s")
    return f"{kind} {item_id}" if item_id is not None else f"{plural}[{number}]"


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False
