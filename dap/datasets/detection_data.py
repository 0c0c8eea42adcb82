"""Detection sets in COCO, VOC and YOLO formats, read as COCO content."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from dap.coco_boxes import left_out_boxes
from dap.files import IMAGE_SUFFIXES, write_coco

TRAIN, VAL, TEST = "train", "val", "test"
_SHOWN = 5  # files per kind that a warning names
_SPLITS = {
    **dict.fromkeys(("train", "training", "train2017", "trainval", "default"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "val2017"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}


@dataclass(frozen=True)
class DetectionSplit:
    """Images and boxes of one split.

    Attributes:
        path: File or folder that it was read from.
        images: Folder that ``file_name`` is relative to; ``""`` if file names are absolute paths.
        content: COCO's lists ``images``, ``annotations`` and ``categories``; boxes are x, y,
            width, height in pixels of the image as displayed (EXIF orientation applied).
        unchanged: Whether ``path`` is a COCO file with exactly this content.
        left_out: ``kind``, ``file`` and ``reason`` per item that was left out or changed.
    """

    path: str
    images: str
    content: dict[str, Any]
    unchanged: bool = False
    left_out: list[dict[str, str]] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the categories, in order."""
        return tuple(category["name"] for category in self.content["categories"])

    @property
    def has_masks(self) -> bool:
        """Whether there are objects and all of them have an outline."""
        items = self.content["annotations"]
        return bool(items) and all(item.get("segmentation") for item in items)

    def report(self) -> None:
        """Log warnings about items that were left out and boxes that training will drop."""
        kinds: dict[str, list[dict[str, str]]] = {}
        for item in self.left_out:
            kinds.setdefault(item["kind"], []).append(item)
        for kind, items in kinds.items():
            named = "".join(f"\n  {item['file']}: {item['reason']}" for item in items[:_SHOWN])
            more = f"\n  and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
            line = f"{self.path}: {kind}: {len(items)}{named}{more}"
            print_log(line, "current", logging.WARNING)
        left_out_boxes(self.path, self.content).report()


def read_detection_data(
    path: str | os.PathLike[str], images: str | os.PathLike[str] | None = None
) -> dict[str, DetectionSplit]:
    """Read a detection set in any of the following formats.

    ::

        annotations.json                        COCO, also of Label Studio (result.json)
        root/annotations/instances_train.json   COCO, images in root/train or root/images/train
        root/train/_annotations.coco.json       COCO of Roboflow, images beside
        root/Annotations/*.xml                  VOC; ImageSets/Main/*.txt are the splits
        root/train/*.xml                        VOC of Roboflow, images beside
        root/data.yaml                          YOLO, also of Roboflow and CVAT
        root/classes.txt, images/, labels/      YOLO of Label Studio
        root/obj.names, obj_train_data/         YOLO of CVAT

    Args:
        path: The file or folder.
        images: Folder of the images of a COCO file. Defaults to a folder near the file.

    Returns:
        Splits by name: those of ``'train'``, ``'val'`` and ``'test'`` that exist. A set without
        named splits is ``'train'``. Items that were left out are named in a warning.

    Raises:
        OSError: If a file is missing.
        ValueError: If the format is not recognised, or a file is malformed; the message names file
            and line.
    """
    from .coco_folder import read_coco_folder
    from .voc_folder import read_voc_folder
    from .yolo import is_yolo, read_yolo

    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(
            f"{root} is not there; expected a detection set: a COCO file, or a "
            "folder in the layout of COCO, VOC or YOLO"
        )
    if is_yolo(root):
        splits = read_yolo(root)
    elif root.suffix.lower() == ".json" or (root.is_dir() and _has(root, "*.json", "*/*.json")):
        splits = read_coco_folder(root, images)
    elif root.is_dir() and _has(root, "*.xml", "*/*.xml", "*/*/*.xml"):
        splits = read_voc_folder(root)
    else:
        raise ValueError(
            f"{root}: no detection set is recognised; found {_describe(root)}. Expected a COCO "
            "file (.json), a VOC folder (Annotations/*.xml), or a YOLO folder (data.yaml, or "
            "classes.txt with images/ and labels/)"
        )
    for split in splits.values():
        split.report()
    return splits


def split_name(name: str) -> str | None:
    """Return ``'train'``, ``'val'`` or ``'test'`` for a usual name of that split, else None."""
    return _SPLITS.get(name.lower())


def image_files(folder: Path) -> list[Path]:
    """Paths of the images in a folder, at any depth, sorted."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in files if not path.name.startswith("."))


def coco_content(
    classes: Sequence[str],
    images: Sequence[tuple[str, tuple[int, int]]],
    objects: Sequence[Sequence[dict[str, Any]]],
) -> dict[str, Any]:
    """Make COCO's lists from images and their objects, with ids from 1.

    Args:
        classes: Names of the categories.
        images: File name and (height, width) in pixels per image.
        objects: Objects per image: ``name`` of the category, ``bbox`` (x, y, width, height in
            pixels), and further keys of the annotation.
    """
    ids = {name: number for number, name in enumerate(classes, 1)}
    content: dict[str, Any] = {
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
        "images": [],
        "annotations": [],
    }
    for number, ((name, (height, width)), items) in enumerate(zip(images, objects, strict=True), 1):
        content["images"].append(
            {"id": number, "file_name": name, "width": width, "height": height}
        )
        for item in items:
            rest = {key: value for key, value in item.items() if key != "name"}
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": ids[item["name"]],
                    "bbox": item["bbox"],
                    "area": item["bbox"][2] * item["bbox"][3],
                    "iscrowd": 0,
                    **rest,
                }
            )
    return content


def write_split(path: Path, content: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    """Write the content of a split as a COCO file with an ``info``.

    Raises:
        FileExistsError: If the file exists with other content.
    """
    write_coco(
        path,
        info,
        content["categories"],
        map(json.dumps, content["images"]),
        map(json.dumps, content["annotations"]),
        once=True,
    )


def _has(root: Path, *patterns: str) -> bool:
    return any(next(root.glob(pattern), None) is not None for pattern in patterns)


def _describe(root: Path) -> str:
    """Name some files of a folder, for the error message."""
    if not root.is_dir():
        return f"a {root.suffix or 'nameless'} file"
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") or "an empty folder"
