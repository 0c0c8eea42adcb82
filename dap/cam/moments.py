"""Boxes by moments: components of a thresholded map and the mean and variance of their cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

RELEASE_WEIGHT_OFFSET = 0.22  # added to the map in the moments of the official release
RELEASE_MAX_COMPONENTS = 4  # per threshold, in the official release


class Profiles(NamedTuple):
    """Components of a map at several thresholds, with their weights summed along both axes.

    Attributes:
        sums: Sums of the weights of each component in each column (index 0) and in each row
            (index 1), shape (K, 2, max(H, W)); zeros after the end of the shorter axis.
        thresholds: Index of the threshold of each component, shape (K,).
        cells: Iterates over the components; yields the cells of each, bool, shape (H, W).
    """

    sums: np.ndarray
    thresholds: np.ndarray
    cells: Iterator[np.ndarray]


def paper_profiles(cam: np.ndarray, taus: np.ndarray) -> Profiles:
    """Find the components of the paper and sum M = CAM · 1{CAM > τ} over columns and rows.

    For each threshold, the 4-connected components with at least half the cells of the largest
    one are kept, in scan order.

    Args:
        cam: Map in [0, 1], float64, shape (H, W).
        taus: Thresholds, shape (T,).
    """
    labels, stats, index = _components(cam, taus)
    cells = stats[:, cv2.CC_STAT_AREA]
    largest = np.zeros(len(taus), cells.dtype)
    np.maximum.at(largest, index, cells)
    keep = 2 * cells >= largest[index]
    index = index[keep]
    height, width = cam.shape
    length = max(height, width)
    # First bin of each label. Background and dropped components share the first 2 * length bins.
    first_bin = np.zeros(len(keep) + 1, np.int64)
    first_bin[1:][keep] = np.arange(1, len(index) + 1) * (2 * length)
    first = first_bin.take(labels)
    bins = np.empty((2, *labels.shape), np.int64)
    np.add(first, np.arange(width), out=bins[0])
    np.add(first, np.arange(length, length + height)[:, None], out=bins[1])
    weights = np.empty(bins.shape)
    weights[:] = cam
    sums = np.bincount(bins.ravel(), weights.ravel(), (len(index) + 1) * 2 * length)
    kept_labels = np.flatnonzero(keep) + 1
    masks = (labels[i] == label for i, label in zip(index, kept_labels, strict=True))
    return Profiles(sums.reshape(-1, 2, length)[1:], index, masks)


def release_profiles(cam: np.ndarray, taus: np.ndarray) -> Profiles:
    """Do the same as :func:`paper_profiles`, with components and weights of the official release.

    A component consists of all cells above τ inside its bounding slice, with weights CAM + 0.22.
    Per threshold, at most four are kept, whose slice has at least half the area of the largest one.
    """
    height, width = cam.shape
    labels, stats, index = _components(cam, taus)
    largest = _largest_slices(stats, index)
    index, stats = index[largest], stats[largest]
    start = stats[:, :2]  # left, top
    start[:, 1] -= index * (height + 1)
    end = start + stats[:, 2:4]
    at = np.arange(max(height, width))
    inside = ((at >= start[..., None]) & (at < end[..., None])).astype(np.float64)
    weights = np.where(labels[index], cam + RELEASE_WEIGHT_OFFSET, 0.0)
    sums = np.zeros(inside.shape)
    sums[:, 0, :width] = np.einsum("kyx,ky->kx", weights, inside[:, 1, :height])
    sums[:, 1, :height] = np.einsum("kyx,kx->ky", weights, inside[:, 0, :width])
    masks = (
        (labels[i] > 0) & np.outer(rows[:height], columns[:width]).astype(bool)
        for i, (columns, rows) in zip(index, inside, strict=True)
    )
    return Profiles(sums * inside, index, masks)


def moment_boxes(sums: np.ndarray) -> np.ndarray:
    """Fit a box to the weights of each component by mean and variance (DAP, eqs. 3-6).

    A rectangle of width w has variance w**2 / 12 along x, hence w = sqrt(12 Var[x]).

    Args:
        sums: Sums of the weights in each column and in each row, shape (K, 2, L).

    Returns:
        xyxy in cells, at least one cell wide and high, shape (K, 4).
    """
    centres = np.arange(0.5, sums.shape[2])
    total = sums.sum(axis=2)
    # Matrix products are not used, because the rounding of BLAS depends on K.
    mean = np.einsum("kal,l->ka", sums, centres) / total
    offset = centres - mean[..., None]
    variance = np.einsum("kal,kal,kal->ka", sums, offset, offset) / total
    half = np.maximum(np.sqrt(12 * variance), 1.0) / 2
    return np.concatenate([mean - half, mean + half], axis=1)


def _components(cam: np.ndarray, taus: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label the 4-connected components of all thresholds in one pass.

    The thresholded maps are stacked vertically, with an empty row between them.

    Returns:
        Labels, 0 for background, shape (T, H, W); OpenCV's statistics per component (left, top,
        width, height, cells), with ``top`` counted over the whole stack, shape (K, 5); and the
        threshold index of each component, shape (K,).
    """
    height, width = cam.shape
    stack = np.zeros((len(taus), height + 1, width), np.uint8)
    np.greater(cam, taus[:, None, None], out=stack[:, :-1].view(bool))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        stack.reshape(-1, width), connectivity=4, ltype=cv2.CV_32S
    )
    index = stats[1:, cv2.CC_STAT_TOP] // (height + 1)
    return labels.reshape(stack.shape)[:, :-1], stats[1:], index


def _largest_slices(stats: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Components that the official release keeps, by threshold and decreasing area of their slice.

    The release sorts by increasing area and reads the result from its end. Of slices with equal
    area, the last in scan order thus comes first. (Its sort is not stable: among more than 16
    components with different areas, the order of equal areas depends on the version of numpy.)
    """
    areas = stats[:, cv2.CC_STAT_WIDTH] * stats[:, cv2.CC_STAT_HEIGHT]
    order = np.lexsort((-np.arange(len(areas)), -areas, index))
    areas, index = areas[order], index[order]
    largest = index.searchsorted(index)  # position of the first component of the same threshold
    rank = np.arange(len(order)) - largest
    return order[(2 * areas >= areas[largest]) & (rank < RELEASE_MAX_COMPONENTS)]
