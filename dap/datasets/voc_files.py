"""Files in the layout of Pascal VOC: annotations, lists of splits, images of any kind."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from dap.files import IMAGE_SUFFIXES

_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*encoding\s*=\s*["']([\w.:-]+)["'][^>]*\?>""")
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16
# "Unspecified" is VOC's own word where a flag or a pose was not looked at.
_NO, _YES = {"", "0", "false", "no", "unspecified"}, {"1", "true", "yes"}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """An object as its file states it.

    Attributes:
        name: Of its class, without blanks around it.
        corners: xmin, ymin, xmax, ymax as they stand there, whole ones as ``int``.
        ignored: Whether it is ``difficult`` or ``ignore``.
    """

    name: str
    corners: tuple[float, float, float, float]
    ignored: bool

    def as_coco(self, whole: bool = False) -> dict[str, Any]:
        """``name``, ``bbox`` as mmdet's ``VOCDataset`` has it, and ``iscrowd`` if it is ignored.

        Args:
            whole: Whether to cut off the decimals of the corners, as ``VOCDataset`` does.
        """
        x1, y1, x2, y2 = map(int, self.corners) if whole else self.corners
        bbox = [x1 - 1, y1 - 1, x2 - x1, y2 - y1]
        return {"name": self.name, "bbox": bbox, "iscrowd": int(self.ignored)}


class VocAnnotation(NamedTuple):
    """An image as its file states it: width and height in pixels, and its objects."""

    width: int
    height: int
    objects: list[VocObject]


def parse_voc(content: bytes) -> VocAnnotation:
    """Read an annotation file in VOC's layout.

    It may be in any encoding that it declares, or in UTF-8 or UTF-16. It may have a namespace, a
    byte-order mark, zero bytes at its end, or an element around its one ``<annotation>``.
    ``<difficult>`` and ``<ignore>`` may be absent, empty or ``Unspecified``, which mean 0, or words
    such as ``true``. Parts of objects are no objects.

    Args:
        content: The bytes of the file.

    Raises:
        ValueError: If it is no XML, states no size of at least one pixel, or an object lacks its
            name or a corner. The message names the tag and the value, not the file.
    """
    root = _annotation(_parse(content))
    if root.find("size") is None:
        raise ValueError("<annotation> has no <size>; expected one with <width> and <height>")
    width, height = (_number(root, "size", side, "<annotation>") for side in ("width", "height"))
    if width < 1 or height < 1:
        raise ValueError(f"<size> is {width} x {height}; expected the image's width and height")
    return VocAnnotation(int(width), int(height), [_object(i) for i in root.iterfind("object")])


def _parse(content: bytes) -> ElementTree.Element:
    """Parse XML in whatever encoding; tags lose their namespace."""
    if not content.startswith(_BYTE_ORDER_MARKS):
        content = content.rstrip(b"\0")
    declared = _DECLARED.match(content)
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is no XML: {error}{_undeclared(content, declared)}") from error
    except (ValueError, LookupError) as error:  # multi-byte encodings, of which expat knows none
        if declared is None:
            raise ValueError(f"it is no XML: {error}") from error
        root = _decoded(content[declared.end() :], declared[1].decode())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _decoded(content: bytes, encoding: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(content.decode(encoding))
    except LookupError as error:
        raise ValueError(f"it declares an {error}; expected one that Python knows") from error
    except ElementTree.ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error


def _undeclared(content: bytes, declared: object) -> str:
    """Hint for a file that is not UTF-8 and declares no encoding."""
    if declared is not None or content.startswith(_BYTE_ORDER_MARKS):
        return ""
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return (
            f"; the byte 0x{content[error.start]:02x} is no UTF-8 and the file declares no other "
            "encoding: declare it in its first line, or save the file as UTF-8"
        )
    return ""


def _annotation(root: ElementTree.Element) -> ElementTree.Element:
    """Find the ``<annotation>``, which may be wrapped in another element."""
    wrapped = root.findall("annotation")
    if root.tag == "annotation" and not wrapped:
        return root
    if len(wrapped) != 1:
        raise ValueError(
            f"<{root.tag}> has {len(wrapped)} <annotation>; expected one <annotation> per file"
        )
    return wrapped[0]


def _object(item: ElementTree.Element) -> VocObject:
    name = _text(item, "name")
    if not name:
        raise ValueError("<object> has no <name>, or an empty one; expected that of its class")
    of = f"<object> {name!r}"
    if item.find("bndbox") is None:
        raise ValueError(f"{of} has no <bndbox>; expected one with {', '.join(_CORNERS)}")
    x1, y1, x2, y2 = (_number(item, "bndbox", corner, of) for corner in _CORNERS)
    ignored = any(_flag(item, flag, of) for flag in ("difficult", "ignore"))
    return VocObject(name, (x1, y1, x2, y2), ignored)


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").replace("\ufeff", "").strip()


def _number(element: ElementTree.Element, parent: str, tag: str, of: str) -> float:
    """Read a number, as an int where it is whole."""
    if element.find(f"{parent}/{tag}") is None:
        raise ValueError(f"<{parent}> of {of} has no <{tag}>; expected a number")
    text = _text(element, f"{parent}/{tag}")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"<{tag}> of {of} is {text!r}; expected a number, with a decimal point")
    return int(value) if value.is_integer() else value


def _flag(element: ElementTree.Element, tag: str, of: str) -> bool:
    text = _text(element, tag)
    if text.lower() in _NO | _YES:
        return text.lower() in _YES
    try:
        return bool(int(text))
    except ValueError:
        raise ValueError(f"<{tag}> of {of} is {text!r}; expected 0 or 1") from None


def split_file(root: Path, split: str) -> Path:
    """Find the list of a split, ``ImageSets/Main/{split}.txt``.

    Raises:
        FileNotFoundError: If it is not there; it names those that are.
    """
    lists = root / "ImageSets" / "Main"
    path = lists / f"{split}.txt"
    if not path.is_file():
        others = ", ".join(sorted(file.stem for file in lists.glob("*.txt"))[:8]) or "none"
        raise FileNotFoundError(
            f"{path} is not there; expected the list of the split {split!r} in VOC layout, one "
            f"stem a line. Splits there: {others}. Name another folder or another split"
        )
    return path


class ImageFinder:
    """Finds the image of whatever kind with a relative path that lacks its suffix.

    Args:
        root: Folder that paths are relative to.

    Raises:
        NotADirectoryError: If there is no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise NotADirectoryError(f"{root} is no folder; expected that of the images")
        self.root = root
        self._listing = cache(self._list)

    def __call__(self, stem: str) -> str:
        """Give the path of an image with its suffix.

        Raises:
            ValueError: If there is none, or several that differ in their suffix.
        """
        matches = self.matches(stem)
        if len(matches) != 1:
            names = ", ".join(map(os.path.basename, matches))
            which = f"{len(matches)} ({names})" if matches else "none"
            raise ValueError(f"expected one image {self.root / stem}.*, found {which}")
        return matches[0]

    def matches(self, stem: str) -> list[str]:
        """Give the paths of all images with this stem."""
        folder, name = os.path.split(stem)
        return [os.path.join(folder, file) for file in self._listing(folder).get(name, ())]

    def _list(self, folder: str) -> dict[str, list[str]]:
        """List the images of a folder by their stems."""
        listing: dict[str, list[str]] = {}
        place = self.root / folder
        for file in sorted(os.listdir(place) if place.is_dir() else ()):
            stem, suffix = os.path.splitext(file)
            if suffix.lower() in IMAGE_SUFFIXES:
                listing.setdefault(stem, []).append(file)
        return listing


def alike_names(names: Iterable[str], known: Iterable[str] = ()) -> list[str]:
    """Find class names that differ from another, or from a known one, only in case.

    Args:
        names: Those that occur.
        known: Those of a config.

    Returns:
        Such as ``["Cat, cat"]``.
    """
    spellings: dict[str, set[str]] = {}
    occurring = set(names)
    for name in [*occurring, *known]:
        spellings.setdefault(name.casefold(), set()).add(name)
    return [
        ", ".join(sorted(spelt))
        for spelt in spellings.values()
        if len(spelt) > 1 and spelt & occurring
    ]
