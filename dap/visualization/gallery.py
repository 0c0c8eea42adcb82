"""A picture of images, their activation maps and their pseudo boxes (paper, Figure 6)."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from dap.pseudo_boxes.images import read_image

COLOURS_BGR = ((80, 220, 60), (0, 200, 255), (255, 120, 0), (60, 60, 255), (220, 60, 220))
"""Of the boxes, by rank of their threshold, lowest first: green, yellow, blue, red, purple."""

CamFunction = Callable[[Tensor, int], tuple[np.ndarray, tuple[float, float]]]


def draw_gallery(
    annotations: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    image_ids: Sequence[int],
    cam: CamFunction | None = None,
    tile: int = 192,
    columns: int = 8,
) -> Path:
    """Draw images of a pseudo-box run side by side, boxes coloured by threshold.

    Args:
        annotations: COCO file of the run.
        image_root: Folder that its file names are relative to.
        out: PNG file to write.
        image_ids: Images to show, in this order.
        cam: Gives the map (h, w) of an image (BGR, uint8, shape (C, H, W)) and label, and its
            cell size in pixels (y, x); shown as heat over images that have a box. Without it,
            boxes alone.
        tile: Side of a picture in pixels.
        columns: Pictures per row.

    Returns:
        ``out``.

    Raises:
        ValueError: If there is no image to show or an id is not in the file.
    """
    coco = json.loads(Path(annotations).read_text())
    images = {image["id"]: image for image in coco["images"]}
    unknown = [image_id for image_id in image_ids if image_id not in images]
    if unknown or not image_ids:
        raise ValueError(f"image_ids: expected ids of images in {annotations}, found {unknown}")
    boxes = defaultdict(list)
    for annotation in coco["annotations"]:
        boxes[annotation["image_id"]].append(annotation)
    thresholds = sorted({annotation["threshold"] for annotation in coco["annotations"]})
    tiles = []
    for image_id in image_ids:
        image = read_image(str(Path(image_root) / images[image_id]["file_name"]))
        own = boxes[image_id]
        picture = image.numpy().transpose(1, 2, 0).copy()
        if cam is not None and own:
            picture = _overlay(picture, *cam(image, own[0]["category_id"] - 1))
        tiles.append(_tile(picture, own, thresholds, tile))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    if not cv2.imwrite(str(out), np.vstack(rows)):
        raise OSError(f"{out}: the picture could not be written")
    return Path(out)


def _overlay(picture: np.ndarray, cam: np.ndarray, cell_size: tuple[float, float]) -> np.ndarray:
    """Blend the map, normalised to [0, 1], over the picture, each cell at its place."""
    height, width = picture.shape[:2]
    unit = (cam - cam.min()) / max(float(cam.max() - cam.min()), 1e-12)
    full = (round(cam.shape[1] * cell_size[1]), round(cam.shape[0] * cell_size[0]))
    heat = cv2.resize(unit.astype(np.float32), full, interpolation=cv2.INTER_LINEAR)
    heat = cv2.copyMakeBorder(
        heat, 0, max(0, height - full[1]), 0, max(0, width - full[0]), cv2.BORDER_REPLICATE
    )[:height, :width]
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_JET)
    return cv2.addWeighted(picture, 0.6, colours, 0.4, 0)


def _tile(
    picture: np.ndarray, boxes: list[dict[str, Any]], thresholds: list[float], side: int
) -> np.ndarray:
    """Fit a picture into a white square and draw its boxes."""
    scale = (side - 4) / max(picture.shape[:2])
    size_wh = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
    small = cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA)
    for box in boxes:
        x, y, w, h = (round(value * scale) for value in box["bbox"])
        colour = COLOURS_BGR[thresholds.index(box["threshold"]) % len(COLOURS_BGR)]
        cv2.rectangle(small, (x, y), (x + w - 1, y + h - 1), colour, 2)
    square = np.full((side, side, 3), 255, np.uint8)
    square[: small.shape[0], : small.shape[1]] = small
    return square
