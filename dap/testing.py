"""Tiny data sets and models made in code, for the tests of DAP and of packages that use it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np

COLOURS_BGR = {"blue": (220, 40, 40), "green": (40, 200, 40), "red": (40, 40, 220)}
GREY = 110


def draw_image(
    size_hw: tuple[int, int], boxes: Sequence[Sequence[int]], colours: Sequence[str]
) -> np.ndarray:
    """Draw filled rectangles on grey.

    Args:
        size_hw: Height and width in pixels.
        boxes: xyxy in pixels, half-open, one per object.
        colours: Keys of :data:`COLOURS_BGR`, one per object.

    Returns:
        Image, BGR, uint8, shape (H, W, 3).
    """
    image = np.full((*size_hw, 3), GREY, np.uint8)
    for (x1, y1, x2, y2), colour in zip(boxes, colours, strict=True):
        image[y1:y2, x1:x2] = COLOURS_BGR[colour]
    return image


def write_image(path: Path, image: np.ndarray) -> Path:
    """Write an image file in the format of its suffix; folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f"{path}: OpenCV could not write it")
    return path


def random_box(rng: np.random.Generator, size_hw: tuple[int, int]) -> list[int]:
    """Draw a random box with sides of .33 to .67 of the image's, xyxy in pixels, half-open."""
    height, width = size_hw
    h, w = (int(side * rng.uniform(0.33, 0.67)) for side in size_hw)
    y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    return [x, y, x + w, y + h]


def make_class_folders(
    root: Path, images_per_class: int = 3, folders: Mapping[str, str] | None = None, seed: int = 0
) -> Path:
    """Write a classification set: JPEG files with one rectangle in the colour of the class.

    ::

        root/
        ├── blue/0.jpg …
        ├── green/0.jpg …
        └── red/0.jpg …

    Args:
        root: Folder to write.
        images_per_class: Files per class.
        folders: Folder name → colour. Defaults to one folder per colour, named after it.
        seed: Seed of sizes and positions.

    Returns:
        ``root``.
    """
    rng = np.random.default_rng(seed)
    for folder, colour in (folders or {name: name for name in COLOURS_BGR}).items():
        for number in range(images_per_class):
            size_hw = (int(rng.integers(96, 160)), int(rng.integers(96, 160)))
            image = draw_image(size_hw, [random_box(rng, size_hw)], [colour])
            write_image(root / folder / f"{number}.jpg", image)
    return root


def make_voc(
    root: Path,
    splits: Mapping[str, int],
    classes: Sequence[str] = ("blue", "green", "red"),
    objects: int = 2,
    size_hw: tuple[int, int] = (96, 128),
    seed: int = 0,
) -> Path:
    """Write a detection set in the layout of Pascal VOC.

    ::

        root/
        ├── Annotations/000000.xml …
        ├── ImageSets/Main/{split}.txt
        └── JPEGImages/000000.jpg …

    Args:
        root: Folder to write, for VOC 2007 ``…/VOC2007``.
        splits: Name of each split → number of its images.
        classes: Class names; class number i has colour number i modulo 3.
        objects: Objects per image.
        size_hw: Size of the images in pixels.
        seed: Seed of classes and positions.

    Returns:
        ``root``.
    """
    rng = np.random.default_rng(seed)
    number = 0
    for split, count in splits.items():
        stems = []
        for _ in range(count):
            stem = f"{number:06d}"
            labels = rng.integers(0, len(classes), objects)
            boxes = [random_box(rng, size_hw) for _ in labels]
            colours = [list(COLOURS_BGR)[label % len(COLOURS_BGR)] for label in labels]
            write_image(root / "JPEGImages" / f"{stem}.jpg", draw_image(size_hw, boxes, colours))
            names = [classes[label] for label in labels]
            write_voc_annotation(root / "Annotations" / f"{stem}.xml", size_hw, boxes, names)
            stems.append(stem)
            number += 1
        listing = root / "ImageSets" / "Main" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("".join(f"{stem}\n" for stem in stems))
    return root


def write_voc_annotation(
    path: Path, size_hw: tuple[int, int], boxes: Sequence[Sequence[int]], names: Sequence[str]
) -> Path:
    """Write the objects of one image in the format of VOC: 1-based pixels, both ends inclusive.

    Args:
        path: The XML file; the image has the same name.
        size_hw: Size of the image in pixels.
        boxes: xyxy in pixels, half-open.
        names: Class of each box.
    """
    annotation = ElementTree.Element("annotation")
    _add(annotation, filename=f"{path.stem}.jpg")
    _add(ElementTree.SubElement(annotation, "size"), width=size_hw[1], height=size_hw[0], depth=3)
    for (x1, y1, x2, y2), name in zip(boxes, names, strict=True):
        item = ElementTree.SubElement(annotation, "object")
        _add(item, name=name, difficult=0)
        corners = ElementTree.SubElement(item, "bndbox")
        _add(corners, xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(annotation).write(path)
    return path


def make_coco(
    root: Path, images: int = 6, classes: Sequence[str] = ("blue", "green", "red"), seed: int = 0
) -> Path:
    """Write a detection set as a COCO json beside a folder of JPEG files.

    Category ids are 3, 7, 11, …, and the first image has no box: valid cases that are often missed.

    Args:
        root: Folder to write: ``annotations.json`` and ``images/``.
        images: Number of images, at least 2.
        classes: Category names; category number i has colour number i modulo 3.
        seed: Seed of classes and positions.

    Returns:
        Path of the json file.
    """
    rng = np.random.default_rng(seed)
    content: dict[str, list[dict[str, Any]]] = {
        "categories": [{"id": 3 + 4 * i, "name": name} for i, name in enumerate(classes)],
        "images": [],
        "annotations": [],
    }
    for number in range(images):
        size_hw = (96, 128)
        labels = rng.integers(0, len(classes), 2 if number else 0)
        boxes = [random_box(rng, size_hw) for _ in labels]
        colours = [list(COLOURS_BGR)[label % len(COLOURS_BGR)] for label in labels]
        name = f"{number:06d}.jpg"
        write_image(root / "images" / name, draw_image(size_hw, boxes, colours))
        content["images"].append(
            {"id": 10 + number, "file_name": name, "height": size_hw[0], "width": size_hw[1]}
        )
        for label, (x1, y1, x2, y2) in zip(labels.tolist(), boxes, strict=True):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": 10 + number,
                    "category_id": 3 + 4 * label,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    path = root / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def _add(parent: ElementTree.Element, **children: object) -> None:
    for name, value in children.items():
        ElementTree.SubElement(parent, name).text = str(value)


def tiny_classifier_config(num_classes: int = 3) -> dict[str, Any]:
    """The ``model`` config of an mmpretrain ResNet-18 with few channels and a linear head."""
    return {
        "type": "ImageClassifier",
        "backbone": {
            "type": "ResNet",
            "depth": 18,
            "stem_channels": 8,
            "base_channels": 8,
            "style": "pytorch",
        },
        "neck": {"type": "GlobalAveragePooling"},
        "head": {
            "type": "LinearClsHead",
            "num_classes": num_classes,
            "in_channels": 64,
            "loss": {"type": "CrossEntropyLoss"},
        },
        "data_preprocessor": {
            "num_classes": num_classes,
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "to_rgb": True,
        },
    }
