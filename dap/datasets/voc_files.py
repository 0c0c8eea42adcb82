"""Files in Pascal VOC's layout: annotations, lists of splits, and images with any suffix."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from mmdet.datasets import VOCDataset

from dap.files import IMAGE_SUFFIXES

VOC_CLASSES: tuple[str, ...] = VOCDataset.METAINFO["classes"]  # sorted by name
_DECLARATION = re.compile(rb"""^\s*<\?xml[^>]*encoding\s*=\s*["']([\w.:-]+)["'][^>]*\?>""")
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16
# VOC writes "Unspecified" where a flag or a pose was not annotated.
_NO, _YES = {"", "0", "false", "no", "unspecified"}, {"1", "true", "yes"}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """An object of an annotation file.

    Attributes:
        name: Class name without surrounding blanks.
        corners: xmin, ymin, xmax, ymax as written in the file, whole numbers as ``int``.
        ignored: Whether it is marked ``difficult`` or ``ignore``.
    """

    name: str
    corners: tuple[float, float, float, float]
    ignored: bool

    def edges(self, one_based: bool) -> tuple[float, float, float, float]:
        """Box (x1, y1, x2, y2) in pixels, half-open.

        Args:
            one_based: Whether the corners are pixels counted from 1, both inside the box (Pascal
                VOC), instead of edges counted from 0 (ILSVRC).
        """
        x1, y1, x2, y2 = self.corners
        return x1 - one_based, y1 - one_based, x2, y2

    def as_coco(self, whole: bool = False) -> dict[str, Any]:
        """Return ``name``, ``bbox`` as mmdet's ``VOCDataset`` has it, and ``iscrowd`` if ignored.

        Args:
            whole: Whether to truncate the corners to integers, as ``VOCDataset`` does.
        """
        x1, y1, x2, y2 = map(int, self.corners) if whole else self.corners
        bbox = [x1 - 1, y1 - 1, x2 - x1, y2 - y1]
        return {"name": self.name, "bbox": bbox, "iscrowd": int(self.ignored)}


class VocAnnotation(NamedTuple):
    """Content of an annotation file: width and height of the image in pixels, and its objects."""

    width: int
    height: int
    objects: list[VocObject]


def parse_voc(content: bytes) -> VocAnnotation:
    """Parse an annotation file in VOC's layout.

    The encoding is the declared one, UTF-8 or UTF-16. Files may have namespaces, a byte-order mark,
    zero bytes at the end, and one element around a single ``<annotation>``. ``<difficult>`` and
    ``<ignore>`` may be absent, empty or ``Unspecified``, which all mean 0, or words such as
    ``true``. Parts of objects are not read.

    Args:
        content: The bytes of the file.

    Raises:
        ValueError: If it is not XML, states no size of at least one pixel, or an object lacks its
            name or a corner. The message names the tag and the value, not the file.
    """
    root = _annotation(_parse(content))
    if root.find("size") is None:
        raise ValueError("<annotation> has no <size>; expected one with <width> and <height>")
    width, height = (_number(root, "size", side, "<annotation>") for side in ("width", "height"))
    if width < 1 or height < 1:
        raise ValueError(f"<size> is {width} x {height}; expected the image's width and height")
    return VocAnnotation(int(width), int(height), [_object(i) for i in root.iterfind("object")])


def parse_voc_file(content: bytes, xml: Path) -> VocAnnotation:
    """Parse the content of an annotation file, see :func:`parse_voc`; errors name the file."""
    try:
        return parse_voc(content)
    except ValueError as error:
        raise ValueError(
            f"{xml} is no annotation in VOC layout: {error}. Repair the file, or remove it, and "
            "its line in the list of the split if there is one"
        ) from error


def _parse(content: bytes) -> ElementTree.Element:
    """Parse XML in any encoding, and remove namespaces from the tags."""
    if not content.startswith(_BYTE_ORDER_MARKS):
        content = content.rstrip(b"\0")
    declaration = _DECLARATION.match(content)
    try:
        try:
            root = ElementTree.fromstring(content)
        except (ValueError, LookupError):  # expat does not support multi-byte encodings
            if declaration is None:
                raise
            text = content[declaration.end() :].decode(declaration[1].decode())
            root = ElementTree.fromstring(text)
    except LookupError as error:
        raise ValueError(f"it declares an {error}; expected one that Python knows") from error
    except (ElementTree.ParseError, ValueError) as error:
        hint = "" if declaration else _encoding_hint(content)
        raise ValueError(f"it is no XML: {error}{hint}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _encoding_hint(content: bytes) -> str:
    """Hint for a file that declares no encoding and is not UTF-8; ``''`` if it is."""
    if content.startswith(_BYTE_ORDER_MARKS):
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
    owner = f"<object> {name!r}"
    if item.find("bndbox") is None:
        raise ValueError(f"{owner} has no <bndbox>; expected one with {', '.join(_CORNERS)}")
    x1, y1, x2, y2 = (_number(item, "bndbox", corner, owner) for corner in _CORNERS)
    ignored = any(_flag(item, flag, owner) for flag in ("difficult", "ignore"))
    return VocObject(name, (x1, y1, x2, y2), ignored)


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").replace("\ufeff", "").strip()


def _number(element: ElementTree.Element, parent: str, tag: str, owner: str) -> float:
    """Read a finite number; a whole one is returned as int."""
    if element.find(f"{parent}/{tag}") is None:
        raise ValueError(f"<{parent}> of {owner} has no <{tag}>; expected a number")
    text = _text(element, f"{parent}/{tag}")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"<{tag}> of {owner} is {text!r}; expected a number, with a decimal point")
    return int(value) if value.is_integer() else value


def _flag(element: ElementTree.Element, tag: str, owner: str) -> bool:
    text = _text(element, tag)
    if text.lower() in _NO | _YES:
        return text.lower() in _YES
    try:
        return bool(int(text))
    except ValueError:
        raise ValueError(f"<{tag}> of {owner} is {text!r}; expected 0 or 1") from None


def split_file(root: Path, split: str) -> Path:
    """Return the path of the list of a split, ``ImageSets/Main/{split}.txt``.

    Raises:
        FileNotFoundError: If it does not exist; the message names the existing lists.
    """
    lists = root / "ImageSets" / "Main"
    path = lists / f"{split}.txt"
    if not path.is_file():
        others = ", ".join(sorted(file.stem for file in lists.glob("*.txt"))[:8]) or "none"
        raise FileNotFoundError(
            f"{path} is not there; expected the list of the split {split!r} in VOC layout, one "
            f"stem per line. Splits there: {others}. Name another folder or another split"
        )
    return path


class ImageFinder:
    """Finds images by their relative path without suffix. Each folder is listed once.

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
        """Return the path of an image with its suffix.

        Raises:
            ValueError: If there is no image, or several that differ in their suffix.
        """
        matches = self.matches(stem)
        if len(matches) != 1:
            names = ", ".join(map(os.path.basename, matches))
            which = f"{len(matches)} ({names})" if matches else "none"
            raise ValueError(f"expected one image {self.root / stem}.*, found {which}")
        return matches[0]

    def matches(self, stem: str) -> list[str]:
        """Return the paths of all images with this stem."""
        folder, name = os.path.split(stem)
        return [os.path.join(folder, file) for file in self._listing(folder).get(name, ())]

    def _list(self, folder: str) -> dict[str, list[str]]:
        """Map stems to the image files of a folder, without dangling links and subfolders."""
        listing: dict[str, list[str]] = {}
        path = self.root / folder
        if not path.is_dir():
            return listing
        with os.scandir(path) as entries:
            files = [entry.name for entry in entries if entry.is_file()]
        for file in sorted(files, key=_suffix_order):
            stem, suffix = os.path.splitext(file)
            if suffix.lower() in IMAGE_SUFFIXES:
                listing.setdefault(stem, []).append(file)
        return listing


def _suffix_order(file: str) -> tuple[str, str]:
    """Sort key of image files with the same stem: by suffix, ``.jpg`` before ``.JPG``."""
    return os.path.splitext(file)[1].lower(), file.swapcase()


def alike_names(names: Iterable[str], known: Iterable[str] = ()) -> list[str]:
    """Find class names that differ from another name, or from a known one, only in case.

    Args:
        names: Names that occur.
        known: Names of a config.

    Returns:
        One string per group of such names, as in ``["Cat, cat"]``.
    """
    occurring = set(names)
    spellings: dict[str, set[str]] = {}
    for name in [*occurring, *known]:
        spellings.setdefault(name.casefold(), set()).add(name)
    return [
        ", ".join(sorted(group))
        for group in spellings.values()
        if len(group) > 1 and group & occurring
    ]
