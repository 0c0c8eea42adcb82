"""Draw the quick start's data: JPEG images of coloured, textured shapes.

Each class has its own shape, hue and texture. The classification set has class folders (ImageFolder
layout), with one or two objects of one class per image. The detection set has several objects of
*other* classes per image, in the layout of Pascal VOC and as COCO files with masks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from dap.store.masks import encode_mask, segmentation
from dap.testing import write_image, write_voc_annotation

SIDE = 128  # side of an image, in pixels
SUPERSAMPLE = 4


class ShapeClass(NamedTuple):
    """Appearance of the objects of a class.

    Attributes:
        name: Name of the folder and of the category.
        outline: Points of each outline around (0, 0), with a radius of about 1, shape (P, 2). A
            second outline inside the first one cuts a hole.
        hue: Hue in OpenCV's range [0, 180).
        texture: Name of the texture, one of ``TEXTURES``.
    """

    name: str
    outline: list[np.ndarray]
    hue: int
    texture: str


def _polygon(corners: int, inner: float = 1.0, turn: float = 0.0) -> np.ndarray:
    """Return a regular polygon, or a star whose inner corners have the radius ``inner``."""
    count = corners if inner == 1.0 else 2 * corners
    angle = 2 * np.pi * np.arange(count) / count - np.pi / 2 + turn
    radius = np.where(np.arange(count) % 2, inner, 1.0)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _ellipse(width: float = 1.0, height: float = 1.0, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    return _polygon(40) * [width, height] + [x, y]


def _points(*xy: float) -> np.ndarray:
    return np.array(xy, float).reshape(-1, 2)


def _arc(start: float, end: float, radius: float = 1.0, x: float = 0.0) -> np.ndarray:
    angle = np.linspace(start, end, 30) * np.pi
    return np.stack([radius * np.cos(angle) + x, radius * np.sin(angle)], axis=1)


OUTLINES: dict[str, list[np.ndarray]] = {
    "disc": [_ellipse()],
    "square": [_polygon(4, turn=np.pi / 4)],
    "triangle": [_polygon(3)],
    "pentagon": [_polygon(5)],
    "star": [_polygon(5, 0.45)],
    "ring": [_ellipse(), _ellipse(0.5, 0.5)],
    "cross": [_points(-.35, -1, .35, -1, .35, -.35, 1, -.35, 1, .35, .35, .35, .35, 1, -.35, 1,
                      -.35, .35, -1, .35, -1, -.35, -.35, -.35)],
    "crescent": [np.concatenate([_arc(0.35, 1.65), _arc(1.6, 0.4, 0.75, 0.35)])],
    "heart": [_points(0, 1, -1, -.1, -.95, -.6, -.5, -.9, 0, -.5, .5, -.9, .95, -.6, 1, -.1)],
    "arrow": [_points(-1, -.3, .1, -.3, .1, -.8, 1, 0, .1, .8, .1, .3, -1, .3)],
    "half_disc": [_arc(0, 1)],
    "oval": [_ellipse(1, 0.55)],
    "ell": [_points(-.8, -1, -.1, -1, -.1, .35, .8, .35, .8, 1, -.8, 1)],
    "hourglass": [_points(-.8, -1, .8, -1, .2, 0, .8, 1, -.8, 1, -.2, 0)],
    "bolt": [_points(.1, -1, .8, -1, .25, -.2, .8, -.2, -.5, 1, -.1, .1, -.7, .1)],
    "gear": [_polygon(8, 0.7)],
    "hexagon": [_polygon(6)],
    "kite": [_points(0, -1, .65, -.2, 0, 1, -.65, -.2)],
    "tee": [_points(-1, -.9, 1, -.9, 1, -.25, .35, -.25, .35, 1, -.35, 1, -.35, -.25, -1, -.25)],
    "frame": [_polygon(4, turn=np.pi / 4), _polygon(4, turn=np.pi / 4) * 0.5],
    "chevron": [_points(-1, -.8, -.2, -.8, .8, 0, -.2, .8, -1, .8, 0, 0)],
    "four_star": [_polygon(4, 0.4)],
    "drop": [np.concatenate([_arc(0, 1, 0.75), _points(0, -1.1)])],
    "house": [_points(0, -1, .9, -.2, .9, .9, -.9, .9, -.9, -.2)],
}  # fmt: skip
TEXTURES = ("plain", "stripes", "dots", "checks")
PRETRAIN_NAMES = tuple(OUTLINES)[:16]
DETECTION_NAMES = tuple(OUTLINES)[16:]


def make_classes(names: Sequence[str], hues: int, shift: int = 0) -> list[ShapeClass]:
    """Assign one of ``hues`` hues and a texture to each shape.

    Classes of the same hue differ in texture. ``shift`` is added to the hues, so that they differ
    from those of another set.
    """
    return [
        ShapeClass(
            name, OUTLINES[name], (i * 180 // hues + shift) % 180, TEXTURES[(i + i // hues) % 4]
        )
        for i, name in enumerate(names)
    ]


def _texture(name: str, side: int, rng: np.random.Generator) -> np.ndarray:
    """Return the brightness of a texture at random phase and angle, in [0, 1], (side, side)."""
    angle, period = rng.uniform(0, np.pi), side * rng.uniform(0.06, 0.09)
    y, x = np.mgrid[:side, :side] + rng.uniform(0, side)
    u = (x * np.cos(angle) + y * np.sin(angle)) * np.pi / period
    v = (y * np.cos(angle) - x * np.sin(angle)) * np.pi / period
    waves: dict[str, Callable[[], np.ndarray]] = {
        "plain": lambda: np.ones_like(u),
        "stripes": lambda: np.sin(u) > 0,
        "dots": lambda: np.sin(u) + np.sin(v) < 0.8,
        "checks": lambda: np.sin(u) * np.sin(v) > 0,
    }
    return np.where(waves[name](), 1.0, 0.45)


def _background(rng: np.random.Generator) -> np.ndarray:
    """Return a background of soft patches, grey ellipses and thin lines, shape (SIDE, SIDE, 3)."""
    coarse = rng.uniform(70, 185, (4, 4, 1)) + rng.uniform(-25, 25, (4, 4, 3))
    image = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(2, 6)):
        centre, axes = rng.integers(0, SIDE, 2).tolist(), rng.integers(4, 22, 2).tolist()
        dull = (rng.uniform(50, 220) + rng.uniform(-25, 25, 3)).tolist()
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, dull, -1)
    for _ in range(rng.integers(2, 6)):
        start, end = rng.integers(0, SIDE, (2, 2)).tolist()
        cv2.line(image, start, end, (float(rng.uniform(60, 200)),) * 3, int(rng.integers(1, 3)))
    return image + rng.normal(0, 5, image.shape)


def _paint(
    image: np.ndarray, shape: ShapeClass, centre: np.ndarray, radius: float,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Draw an object into the image; return its mask."""
    turn, stretch = rng.uniform(-0.35, 0.35), rng.uniform(0.75, 1.3)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    scale = radius * np.array([np.sqrt(stretch), 1 / np.sqrt(stretch)])
    mask = np.zeros((SIDE * SUPERSAMPLE,) * 2, np.uint8)
    outlines = [
        ((points * scale @ rotation.T + centre) * SUPERSAMPLE).round().astype(np.int32)
        for points in shape.outline
    ]
    cv2.fillPoly(mask, outlines, 255)
    alpha = cv2.resize(mask, (SIDE, SIDE), interpolation=cv2.INTER_AREA)[..., None] / 255.0
    hue = (shape.hue + rng.integers(-6, 7)) % 180
    value = _texture(shape.texture, SIDE, rng) * rng.uniform(150, 255)
    saturation = np.full_like(value, rng.uniform(90, 200))
    hsv = np.stack([np.full_like(value, hue), saturation, value], axis=2).round()
    colour = cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2BGR)
    image[:] = image * (1 - alpha) + colour * alpha
    return alpha[..., 0] > 0.5


def _tight_box(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def draw_scene(
    shapes: Sequence[ShapeClass], radii: tuple[float, float], rng: np.random.Generator
) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
    """Draw objects that do not touch on a random background.

    Args:
        shapes: Class of each object. Objects for which no free place is found are left out, except
            the first one.
        radii: Smallest and largest radius in pixels.
        rng: Random number generator.

    Returns:
        Image, BGR uint8, shape (SIDE, SIDE, 3); masks of the objects, bool, shape (SIDE, SIDE); and
        their names.
    """
    image, taken = _background(rng), np.zeros((SIDE, SIDE), bool)
    masks, names = [], []
    for shape in shapes:
        for _ in range(30):
            radius = rng.uniform(*radii)
            centre = rng.uniform(0.9 * radius, SIDE - 0.9 * radius, 2)
            left, top = np.maximum(centre - radius - 3, 0).astype(int)
            right, bottom = (centre + radius + 3).astype(int)
            if not taken[top:bottom, left:right].any():
                taken[top:bottom, left:right] = True
                masks.append(_paint(image, shape, centre, radius, rng))
                names.append(shape.name)
                break
    return image.clip(0, 255).astype(np.uint8), masks, names


class CocoFile:
    """A COCO file of images and objects with masks.

    Args:
        names: Names of the categories, in label order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._ids = {name: number for number, name in enumerate(names, 1)}
        self.content: dict[str, list[dict[str, Any]]] = {
            "categories": [{"id": number, "name": name} for name, number in self._ids.items()],
            "images": [],
            "annotations": [],
        }

    def add(self, file_name: str, masks: Sequence[np.ndarray], names: Sequence[str]) -> None:
        """Add an image with its objects."""
        images, annotations = self.content["images"], self.content["annotations"]
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": file_name, "width": SIDE, "height": SIDE})
        for mask, name in zip(masks, names, strict=True):
            x1, y1, x2, y2 = _tight_box(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": self._ids[name],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": segmentation(encode_mask(mask), mask.shape),
                }
            )

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_text(json.dumps(self.content))


def make_classification_set(root: Path, per_class: int, seed: int, true_boxes: Path) -> Path:
    """Write class folders ``root/<class>/<n>.jpg``.

    True boxes and masks are written to the COCO file ``true_boxes``. Only the control run and the
    evaluation use them.
    """
    coco = CocoFile(sorted(PRETRAIN_NAMES))
    for index, shape in enumerate(make_classes(PRETRAIN_NAMES, hues=16)):
        rng = np.random.default_rng([seed, 0, index])
        for number in range(per_class):
            count = 1 + int(rng.random() < 0.35)
            radii = (26.0, 56.0) if count == 1 else (20.0, 32.0)
            image, masks, names = draw_scene([shape] * count, radii, rng)
            name = f"{shape.name}/{number:04d}.jpg"
            write_image(root / name, image)
            coco.add(name, masks, names)
    coco.write(true_boxes)
    return root


def make_detection_set(root: Path, shots: int, test_images: int, seed: int) -> Path:
    """Write ``root`` in VOC layout: ``train`` with ``shots`` images per class, and ``test``.

    ``train.json`` and ``test.json`` are COCO files of the same images, with masks.
    """
    shapes = make_classes(DETECTION_NAMES, hues=4, shift=6)
    for split, key in (("train", 1), ("test", 2)):
        rng = np.random.default_rng([seed, key])
        wanted = (
            [shape for shape in shapes for _ in range(shots)]
            if split == "train"
            else [shapes[i % len(shapes)] for i in range(test_images)]
        )
        stems, coco = [], CocoFile(DETECTION_NAMES)
        for number, first in enumerate(wanted):
            others = [shapes[i] for i in rng.integers(0, len(shapes), rng.integers(2, 6))]
            image, masks, names = draw_scene([first, *others], (8, 24), rng)
            boxes = [_tight_box(mask) for mask in masks]
            stem = f"{split}_{number:04d}"
            write_image(root / "JPEGImages" / f"{stem}.jpg", image)
            write_voc_annotation(root / "Annotations" / f"{stem}.xml", (SIDE, SIDE), boxes, names)
            stems.append(stem)
            coco.add(f"{stem}.jpg", masks, names)
        coco.write(root / f"{split}.json")
        listing = root / "ImageSets" / "Main" / f"{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("".join(f"{stem}\n" for stem in stems))
    return root


if __name__ == "__main__":
    seed_argument, images, shots, test_images = map(int, sys.argv[1:])
    make_classification_set(
        Path("data/shapes/train"), images, seed_argument, Path("data/true_boxes.json")
    )
    make_detection_set(Path("data/shapes_voc"), shots, test_images, seed_argument)
