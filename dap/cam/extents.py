"""Bounding boxes of the components of an enlarged map, at multiples of its Otsu threshold."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

ENLARGED_SIDE = 128  # longer side of an enlarged map, in cells, at most


class Extents(NamedTuple):
    """The components of an enlarged map that a rule keeps.

    Attributes:
        boxes: xyxy, half-open, in cells of the map, float64, shape (K, 4), by threshold and from
            top to bottom.
        thresholds: Index of the threshold of each component, shape (K,).
        masks: Cells of each component on the enlarged map, bool, shape (h, w); empty unless
            requested.
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

    The map is enlarged by an integer factor, bilinear between the centres of its cells, to at most
    :data:`ENLARGED_SIDE` cells on its longer side (a larger map is not resized). Cells that start
    beyond the image are removed. The thresholds are the multiples of Otsu's threshold, computed
    in 256 levels from the remaining cells. For each threshold, the components that enclose at
    least half as many cells as the largest one are kept. The box of a component encloses its cells.
    Components are 8-connected, which makes no difference on an enlarged map.

    Args:
        cam: Map in [0, 1], float64, shape (H, W).
        multiples: Positive multiples of Otsu's threshold, shape (T,).
        size_cells: Height and width of the image in cells of the map.
        with_masks: Whether to return the cells of each component: those inside its outline and
            above the threshold, without holes.
    """
    large, factor = enlarged(cam, size_cells)
    taus = multiples * otsu_threshold(large)
    boxes, cells, index, outlines = components(large, taus)
    largest = np.zeros(len(multiples))
    np.maximum.at(largest, index, cells)
    keep = 2 * cells >= largest[index]
    masks: list[np.ndarray] = []
    if with_masks:
        masks = [_cells_within(outlines[i], large, taus, index[i]) for i in np.flatnonzero(keep)]
    return Extents(boxes[keep] / factor, index[keep], masks, factor)


def _cells_within(outline: np.ndarray, cam: np.ndarray, taus: np.ndarray, index: int) -> np.ndarray:
    """Cells above the threshold ``taus[index]`` that are on an outline or inside it.

    The outline is in (x, y) of the stack of thresholded maps.
    """
    filled = np.zeros(cam.shape, np.uint8)
    offset = (0, -int(index) * (len(cam) + 1))
    cv2.drawContours(filled, [outline], -1, 1, cv2.FILLED, offset=offset)
    return (cam > np.float32(taus[index])) & filled.view(bool)


def enlarged(cam: np.ndarray, size_cells: tuple[float, float]) -> tuple[np.ndarray, int]:
    """Enlarge a map by an integer factor and remove the cells that start beyond the image.

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
    """Compute the threshold of Otsu (1979) of a map in [0, 1], in steps of 1/255.

    It divides the cells into two groups with the largest variance between them.
    """
    levels = np.ascontiguousarray(np.rint(np.clip(cam, 0, 1) * 255).astype(np.uint8))
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return (float(threshold) + 0.5) / 255


def components(
    cam: np.ndarray, taus: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Any]]:
    """Find the 8-connected components above each threshold by their outlines.

    This takes a sixth of the time of labelling the components. The number of cells follows from
    Pick's theorem: if an outline has b steps from cell to cell, and its cell centres enclose the
    area A, then A + b / 2 + 1 cells are on the outline or inside it, holes included.

    Args:
        cam: Map, shape (H, W).
        taus: Thresholds, shape (T,).

    Returns:
        Boxes, xyxy, half-open, in cells, float64, shape (K, 4), by threshold and from top to
        bottom; the number of cells that each encloses, shape (K,); the index of its threshold,
        shape (K,); its outline as OpenCV returns it, in (x, y) of the stack of thresholded maps.
    """
    height, width = cam.shape
    stack = np.zeros((len(taus), height + 1, width), np.uint8)  # with an empty row between two maps
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
    return boxes, enclosed, index, [outlines[int(row[-1])] for row in rows]
