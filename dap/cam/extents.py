"""Boxes by extent: the enlarged map, its own threshold, the extents of its components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

ENLARGED_SIDE = 128  # longest side of the grid that a map is enlarged to


class Extents(NamedTuple):
    """The components of an enlarged map that a rule keeps.

    Attributes:
        boxes: xyxy, half-open, in cells of the map, float64, shape (K, 4), in the order of the
            thresholds and for each one from the top down.
        thresholds: Index of the threshold of each, shape (K,).
        masks: Of each its cells on the enlarged map, bool, shape (h, w); none if they were not
            asked for.
        factor: Cells of the enlarged map per cell of the map.
    """

    boxes: np.ndarray
    thresholds: np.ndarray
    masks: list[np.ndarray]
    factor: int


def extent_boxes(
    cam: np.ndarray,
    multiples: np.ndarray,
    size_cells: tuple[float, float],
    with_masks: bool = False,
) -> Extents:
    """Find the extents of the components above multiples of Otsu's threshold.

    The map is enlarged by a whole factor, bilinear between the centres of its cells, to at most
    :data:`ENLARGED_SIDE` cells on its longer side (a larger map stays as it is). Cells that begin
    beyond the image are left out. Otsu's threshold of what is left, in 256 steps, times each
    multiple is where the map is cut. Of the components above it, those that enclose at least half
    as many cells as the largest one are kept, and the box of a component encloses its cells.
    Cells that touch by a corner are connected: on an enlarged map that makes no difference.

    Args:
        cam: Map in [0, 1], float64, shape (H, W).
        multiples: Positive multiples of Otsu's threshold, shape (T,).
        size_cells: Height and width of the image in cells of the map.
        with_masks: Whether to return the cells of the components: what is above the threshold
            within their outline, holes left out.
    """
    large, factor = enlarged(cam, size_cells)
    taus = multiples * otsu_threshold(large)
    boxes, cells, index, outlines, order = _outlined(large, taus)
    largest = np.zeros(len(multiples))
    np.maximum.at(largest, index, cells)
    keep = 2 * cells >= largest[index]
    masks: list[np.ndarray] = []
    if with_masks:
        masks = [_within(outlines[order[i]], large, taus, index[i]) for i in np.flatnonzero(keep)]
    return Extents(boxes[keep] / factor, index[keep], masks, factor)


def _within(outline: np.ndarray, cam: np.ndarray, taus: np.ndarray, index: int) -> np.ndarray:
    """Cells above a threshold on an outline in the stack of thresholded maps, and inside of it."""
    filled = np.zeros(cam.shape, np.uint8)
    first = (0, -int(index) * (len(cam) + 1))
    cv2.drawContours(filled, [outline], -1, 1, cv2.FILLED, offset=first)
    return (cam > np.float32(taus[index])) & filled.view(bool)


def enlarged(cam: np.ndarray, size_cells: tuple[float, float]) -> tuple[np.ndarray, int]:
    """Enlarge a map by a whole factor, and cut off what begins beyond the image.

    Args:
        cam: Map, shape (H, W).
        size_cells: Height and width of the image in cells of the map.

    Returns:
        float32, shape (h, w), and the factor: cells of the result per cell of the map.
    """
    height, width = cam.shape
    factor = max(1, ENLARGED_SIDE // max(height, width))
    size_wh = (width * factor, height * factor)
    large = cv2.resize(cam.astype(np.float32), size_wh, interpolation=cv2.INTER_LINEAR)
    rows, columns = (max(1, int(np.ceil(round(side * factor, 6)))) for side in size_cells)
    return large[:rows, :columns], factor


def otsu_threshold(cam: np.ndarray) -> float:
    """The threshold of Otsu (1979) of a map in [0, 1], in steps of 1/255.

    It parts the cells so that the variance between the two groups is largest.
    """
    levels = np.ascontiguousarray(np.rint(np.clip(cam, 0, 1) * 255).astype(np.uint8))
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return (float(threshold) + 0.5) / 255


def components(cam: np.ndarray, taus: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The components above each threshold, by their outlines.

    Outlines take a sixth of the time of labelled components. By Pick's theorem an outline of b
    steps from cell to cell, whose cell centres enclose the area A, has A + b / 2 + 1 cells on it
    and inside, holes included.

    Returns:
        Boxes, xyxy, half-open, in cells, float64, shape (K, 4), by threshold and from the top
        down; the number of cells that each encloses, shape (K,); the index of its threshold,
        shape (K,).
    """
    return _outlined(cam, taus)[:3]


def _outlined(
    cam: np.ndarray, taus: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Sequence[Any], list[int]]:
    """As :func:`components`, and their outlines as OpenCV gives them, with their order.

    Outlines are in (x, y) of the stack of thresholded maps.
    """
    height, width = cam.shape
    stack = np.zeros((len(taus), height + 1, width), np.uint8)  # an empty row between two
    np.greater(cam, taus.astype(np.float32)[:, None, None], out=stack[:, :-1].view(bool))
    outlines, _ = cv2.findContours(
        stack.reshape(-1, width), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    rows = []
    for number, outline in enumerate(outlines):
        steps = len(outline) if len(outline) > 1 else 0
        cells = cv2.contourArea(outline) + steps / 2 + 1
        rows.append((*cv2.boundingRect(outline), cells, number))
    rows.sort(key=lambda row: (row[1], row[0]))
    left, top, across, down, enclosed, _ = np.array(rows, np.float64).reshape(-1, 6).T
    index = (top // (height + 1)).astype(np.int64)
    top = top - index * (height + 1)
    boxes = np.stack([left, top, left + across, top + down], axis=1)
    return boxes, enclosed, index, outlines, [int(row[-1]) for row in rows]
