"""Detection sets in YOLO's layout: a text file per image, with relative coordinates."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dap.files import read_bytes, read_lines, text_lines
from dap.image_size import UNREADABLE, image_size

from .detection_data import TRAIN, DetectionSplit, coco_content, image_files, split_name

_TOLERANCE = 0.01  # relative coordinates may be outside 0 to 1 by this much
Item = dict[str, Any]


class _Layout(NamedTuple):
    """Class names, the file that lists them, and the images per split."""

    classes: list[str]
    source: Path
    splits: dict[str, list[Path]]


def is_yolo(root: Path) -> bool:
    """Whether a file or folder is a YOLO set."""
    return _yaml_file(root) is not None or any(
        (root / name).is_file() for name in ("classes.txt", "obj.names")
    )


def read_yolo(root: Path) -> dict[str, DetectionSplit]:
    """Read a YOLO set, see :func:`.read_detection_data`.

    A line is ``class x y width height`` (centre and size), or an outline ``class x1 y1 x2 y2 x3 y3
    …``, whose bounding box is used. Coordinates are relative to the width and height of the image
    as displayed (EXIF orientation applied). An image with an empty or missing label file has no
    object.

    Args:
        root: The folder, or its data.yaml.

    Returns:
        Splits by name.

    Raises:
        OSError: If a file or the images of the training set are missing.
        ValueError: If the yaml or a line is malformed; the message names file and line.
    """
    layout = _from_yaml(file) if (file := _yaml_file(root)) else _from_names(root)
    if not layout.splits.get(TRAIN):
        raise FileNotFoundError(
            f"{layout.source}: no images of a training set; expected `train: images/train` or "
            "similar, an existing folder or list of images"
        )
    splits = {name: _split(layout, images) for name, images in layout.splits.items() if images}
    splits[TRAIN].left_out.extend(_labels_without_image(layout))
    return splits


def _yaml_file(root: Path) -> Path | None:
    """The data.yaml of a set: the first YAML file that has ``names``."""
    files = [root] if root.is_file() else [*root.glob("*.yaml"), *root.glob("*.yml")]
    for file in sorted(files):
        if file.suffix.lower() in (".yaml", ".yml") and "names" in _parsed(file):
            return file
    return None


def _parsed(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_bytes(file))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {error}") from error
    return content if isinstance(content, dict) else {}


def _from_yaml(file: Path) -> _Layout:
    content = _parsed(file)
    names = content["names"]
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or content.get("nc", len(names)) != len(names):
        raise ValueError(
            f"{file}: names is {content['names']!r} and nc {content.get('nc')!r}; expected a list "
            "of class names, or names by numbers from 0, as many as nc says"
        )
    splits = {
        key: [image for part in _listed(content.get(key)) for image in _images(file, content, part)]
        for key in ("train", "val", "test")
    }
    return _Layout([str(name) for name in names], file, splits)


def _listed(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)] * bool(value)


def _images(file: Path, content: dict[str, Any], part: str) -> list[Path]:
    """Images of a folder or list that a data.yaml names.

    Roboflow writes ``../train/images`` although the folder is ``train/images`` beside the file.
    """
    inside = Path(*[word for word in Path(part).parts if word != ".."])
    for folder in (file.parent / str(content.get("path") or ""), file.parent):
        for path in (folder / part, folder / inside):
            if path.is_dir():
                return image_files(path)
            if path.is_file():
                return [_listed_image(path, line) for line in read_lines(path)]
    return []


def _listed_image(path: Path, line: str) -> Path:
    """Path of an image that a list names, relative to the list; CVAT prepends ``data/``."""
    image = path.parent / line
    return image if image.exists() else path.parent / line.removeprefix("data/")


def _from_names(root: Path) -> _Layout:
    """Read a set with Label Studio's classes.txt or CVAT's obj.names; folders are the splits."""
    source = next(p for n in ("classes.txt", "obj.names") if (p := root / n).is_file())
    splits: dict[str, list[Path]] = {}
    for image in image_files(root):
        words = [w for part in image.relative_to(root).parts[:-1] for w in part.split("_")]
        name = next((name for word in words if (name := split_name(word))), TRAIN)
        splits.setdefault(name, []).append(image)
    return _Layout(read_lines(source), source, splits)


def _split(layout: _Layout, paths: list[Path]) -> DetectionSplit:
    images, objects, left_out = [], [], []

    def leave_out(kind: str, path: Path, reason: str) -> None:
        left_out.append({"kind": kind, "file": str(path), "reason": reason})

    for path in paths:
        try:
            size_hw = image_size(path)
        except UNREADABLE as error:
            leave_out("images that cannot be read", path, f"{type(error).__name__}: {error}")
            continue
        label = label_file(path)
        if not label.is_file():
            leave_out("images without a label file, taken as empty", path, f"no {label}")
        images.append((os.path.abspath(path), size_hw))
        objects.append(_objects(label, size_hw, layout) if label.is_file() else [])
    if not images:
        raise ValueError(f"{layout.source}: none of {len(paths)} images can be read")
    folder = os.path.commonpath([os.path.dirname(name) for name, _ in images])
    relative = [(os.path.relpath(name, folder), size) for name, size in images]
    content = coco_content(layout.classes, relative, objects)
    return DetectionSplit(str(layout.source), folder, content, left_out=left_out)


def _labels_without_image(layout: _Layout) -> list[dict[str, str]]:
    """Label files without an image, in the folders of those that have one."""
    known = {label_file(image) for images in layout.splits.values() for image in images}
    files = {file for folder in {file.parent for file in known} for file in folder.glob("*.txt")}
    unmatched = sorted(file for file in files - known if file.name != "classes.txt")
    notes = {"kind": "labels without an image", "reason": "no image of this name"}
    return [notes | {"file": str(file)} for file in unmatched]


def label_file(image: Path) -> Path:
    """Path of an image's label file: ``labels`` replaces the last ``images``, if any."""
    parts = list(image.parts[:-1])
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    return Path(*parts) / f"{image.stem}.txt"


def _objects(path: Path, size_hw: tuple[int, int], layout: _Layout) -> list[Item]:
    lines = enumerate(text_lines(read_bytes(path), path), 1)
    return [_object(f"{path}:{number}", line, size_hw, layout) for number, line in lines if line]


def _object(source: str, line: str, size_hw: tuple[int, int], layout: _Layout) -> Item:
    """Parse a line; ``source`` is its file and number, for errors."""
    words = line.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{source}: {line!r}; expected numbers: class x y width height")
    label, *shares = values
    is_box = len(shares) == 4
    if not is_box and (len(shares) < 6 or len(shares) % 2):
        raise ValueError(
            f"{source}: {len(words)} values; expected 5 (class x y width height), or a class and 3 "
            "or more points of an outline. A sixth value is a score, which predictions have"
        )
    if label not in range(len(layout.classes)):
        raise ValueError(
            f"{source}: class {words[0]}; expected 0 to {len(layout.classes) - 1}, for the "
            f"{len(layout.classes)} names in {layout.source}"
        )
    if min(shares) < -_TOLERANCE or max(shares) > 1 + _TOLERANCE:
        raise ValueError(
            f"{source}: {line!r} has values outside 0 to 1; expected shares of the image's width "
            "and height, no pixels"
        )
    height, width = size_hw
    if is_box:
        x, y, w, h = shares
        corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        outline: list[float] = []
    else:
        corners = [min(shares[::2]), min(shares[1::2]), max(shares[::2]), max(shares[1::2])]
        outline = [share * (height if i % 2 else width) for i, share in enumerate(shares)]
    x1, y1, x2, y2 = (
        min(max(share, 0.0), 1.0) * (height if i % 2 else width) for i, share in enumerate(corners)
    )
    item: Item = {"name": layout.classes[int(label)], "bbox": [x1, y1, x2 - x1, y2 - y1]}
    return item | ({"segmentation": [outline]} if outline else {})
