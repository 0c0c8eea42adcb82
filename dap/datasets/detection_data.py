"""Detection sets in the formats that people have, as COCO content."""

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
_NAMED = 5  # files of each kind that a warning names
_SPLITS = {
    **dict.fromkeys(("train", "training", "train2017", "trainval", "default"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "val2017"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}


@dataclass(frozen=True)
class DetectionSplit:
    """Images and boxes of one split.

    Attributes:
        path: Where it was read.
        images: Folder that ``file_name`` is relative to; ``""`` if the names are paths.
        content: Lists ``images``, ``annotations`` and ``categories`` as COCO has them: boxes x, y,
            width, height in pixels of the image as it is shown.
        unchanged: Whether ``path`` is a COCO file with just this content.
        left_out: ``kind``, ``file`` and ``reason`` of what was left out or changed.
    """

    path: str
    images: str
    content: dict[str, Any]
    unchanged: bool = False
    left_out: list[dict[str, str]] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the categories in their order."""
        return tuple(category["name"] for category in self.content["categories"])

    @property
    def has_masks(self) -> bool:
        """Whether all objects have an outline."""
        items = self.content["annotations"]
        return bool(items) and all(item.get("segmentation") for item in items)

    def report(self) -> None:
        """Warn of what was left out, and of boxes that training will leave out."""
        kinds: dict[str, list[dict[str, str]]] = {}
        for item in self.left_out:
            kinds.setdefault(item["kind"], []).append(item)
        for kind, items in kinds.items():
            named = "".join(f"\n  {item['file']}: {item['reason']}" for item in items[:_NAMED])
            more = f"\n  and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
            line = f"{self.path}: {len(items)} {kind}:{named}{more}"
            print_log(line, "current", logging.WARNING)
        left_out_boxes(self.path, self.content).report()


def read_detection_data(
    path: str | os.PathLike[str], images: str | os.PathLike[str] | None = None
) -> dict[str, DetectionSplit]:
    """Read a detection set, whatever format it is in.

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
        images: Folder of the images of a COCO file, if it is not found beside it.

    Returns:
        ``'train'``, ``'val'``, ``'test'``, as far as they are there → split. A set without named
        splits is ``'train'``. What was left out has been named in a warning.

    Raises:
        OSError: If a file is missing.
        ValueError: If the format is not recognised, or a file is malformed; it names file and line.
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
            f"{root}: no detection set is recognised; found {_few(root)}. Expected a COCO file "
            "(.json), a VOC folder (Annotations/*.xml), or a YOLO folder (data.yaml, or "
            "classes.txt with images/ and labels/)"
        )
    for split in splits.values():
        split.report()
    return splits


def split_name(name: str) -> str | None:
    """``'train'``, ``'val'`` or ``'test'`` for a name that means it; else None."""
    return _SPLITS.get(name.lower())


def image_files(folder: Path) -> list[Path]:
    """Images of a folder and those below it, sorted."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in files if not path.name.startswith("."))


def coco_content(
    classes: Sequence[str],
    images: Sequence[tuple[str, tuple[int, int]]],
    objects: Sequence[Sequence[dict[str, Any]]],
) -> dict[str, Any]:
    """Put images and their objects together as COCO has them, ids from 1.

    Args:
        classes: Names of the categories.
        images: File name, and height and width in pixels, of each image.
        objects: Of each image: ``name`` of the category, ``bbox`` (x, y, width, height in pixels),
            and what else an annotation has.
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


def write_split(path: Path, content: Mapping[str, Any], description: str) -> None:
    """Write the content of a split as a COCO file; one with other content stays.

    Raises:
        FileExistsError: If another one is there.
    """
    write_coco(
        path,
        {"description": f"DAP: {description}"},
        content["categories"],
        map(json.dumps, content["images"]),
        map(json.dumps, content["annotations"]),
        once=True,
    )


def _has(root: Path, *patterns: str) -> bool:
    return any(next(root.glob(pattern), None) is not None for pattern in patterns)


def _few(root: Path) -> str:
    if not root.is_dir():
        return f"a {root.suffix or 'nameless'} file"
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") or "an empty folder"
