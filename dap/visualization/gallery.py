"""Pictures of images with their activation maps and pseudo boxes (paper, Figures 6, A1, A2)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from dap.files import write_bytes
from dap.store.shard import NO_THRESHOLD

COLOURS_BGR = ((80, 220, 60), (0, 200, 255), (255, 120, 0), (60, 60, 255), (220, 60, 220))
"""Colours of boxes by the rank of their threshold: green (lowest), yellow, blue, red, purple."""
UNKNOWN_BGR, TRUTH_BGR = (200, 200, 200), (255, 255, 255)
"""Colours of boxes whose threshold is not known, and of true boxes, which get a black rim."""
JPEG_QUALITY = 85


def colour_of(threshold: int, thresholds: Sequence[float]) -> tuple[int, int, int]:
    """Colour (B, G, R) of a box by the index of its threshold in the run's ``thresholds``."""
    if threshold == NO_THRESHOLD:
        return UNKNOWN_BGR
    rank = sorted(thresholds).index(thresholds[threshold])
    return COLOURS_BGR[rank % len(COLOURS_BGR)]


def draw_tile(
    picture: np.ndarray,
    boxes: np.ndarray,
    colours: Sequence[tuple[int, int, int]],
    heat: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    side: int = 192,
    masks: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Scale an image to the upper left corner of a white square, and draw its boxes.

    Masks are drawn as thin outlines in the colours of their boxes.

    Args:
        picture: BGR image, uint8, shape (H, W, 3). It is not changed.
        boxes: xyxy, half-open, in pixels of the picture, shape (N, 4), drawn in this order.
        colours: Colour (B, G, R) of each box.
        heat: Map in [0, 1] to blend with the picture, shape (H, W).
        truth: True boxes, in the same convention, shape (M, 4).
        side: Side of the square in pixels.
        masks: Mask of each box, bool, shape (H, W), or no masks at all.

    Returns:
        BGR, uint8, shape (side, side, 3).
    """
    if heat is not None:
        colour_map = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_JET)
        picture = cv2.addWeighted(picture, 0.6, colour_map, 0.4, 0)
    scale = (side - 4) / max(picture.shape[:2])
    size_wh = tuple(max(1, round(length * scale)) for length in picture.shape[1::-1])
    small = cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA)
    for box in truth if truth is not None else ():
        _rectangle(small, box * scale, (0, 0, 0), 4)
        _rectangle(small, box * scale, TRUTH_BGR, 2)
    for box, colour in zip(boxes, colours, strict=True):
        _rectangle(small, box * scale, colour, 2)
    for mask, colour in zip(masks, colours, strict=bool(masks)):
        shrunk = cv2.resize(mask.astype(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(shrunk, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(small, outlines, -1, colour, 1)
    square = np.full((side, side, 3), 255, np.uint8)
    square[: small.shape[0], : small.shape[1]] = small
    return square


def montage(tiles: Sequence[np.ndarray], columns: int = 8) -> np.ndarray:
    """Arrange tiles of equal size in rows; the last row is filled up with white.

    Raises:
        ValueError: If ``tiles`` is empty.
    """
    if not tiles:
        raise ValueError("tiles: expected at least one picture, found none")
    full = [*tiles, *[np.full_like(tiles[0], 255)] * (-len(tiles) % columns)]
    rows = [np.hstack(full[i : i + columns]) for i in range(0, len(full), columns)]
    return np.vstack(rows)


def with_titles(picture: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    """Add a line of ASCII titles above the columns of a picture."""
    height, width = 24, picture.shape[1] // len(titles)
    strip = np.full((height, picture.shape[1], 3), 255, np.uint8)
    for column, title in enumerate(titles):
        at = (column * width + 4, height - 8)
        cv2.putText(strip, title, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([strip, picture])


def write_picture(path: str | os.PathLike[str], picture: np.ndarray) -> Path:
    """Write a picture (BGR, uint8) as PNG or JPEG, by the suffix of the file.

    Raises:
        OSError: If the file cannot be written.
    """
    write_bytes(Path(path), encoded(picture, Path(path).suffix))
    return Path(path)


def encoded(picture: np.ndarray, suffix: str = ".jpg") -> bytes:
    """Encode a picture (BGR, uint8) as the content of a file with this suffix."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else []
    success, content = cv2.imencode(suffix, picture, options)
    if not success:
        raise ValueError(f"a picture of shape {picture.shape} cannot be written as {suffix}")
    return content.tobytes()


def _rectangle(
    picture: np.ndarray, box: np.ndarray, colour: tuple[int, int, int], thickness: int
) -> None:
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    cv2.rectangle(picture, (x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1)), colour, thickness)
