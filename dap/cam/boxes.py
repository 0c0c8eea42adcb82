"""Boxes from one activation map: thresholds, components, their boxes, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from .extents import extent_boxes
from .masks import ComponentMask, level_set
from .rules import Rule, checked_thresholds

NMS_IOU = 0.8

FLAT = 1e-5  # a map whose values differ by no more, relative to their size, is rounding noise
_TOO_LARGE = 1e300  # in magnitude: differences of such values overflow
_RELEASE_WEIGHT_OFFSET = 0.22  # added to the map in the moments of the official release
_RELEASE_MAX_COMPONENTS = 4  # per threshold, in the official release


class Candidates(NamedTuple):
    """Boxes of one map before non-maximum suppression.

    Attributes:
        boxes: xyxy, half-open, clipped, in pixels, float64, shape (N, 4).
        thresholds: Index into the thresholds each box comes from, shape (N,).
        masks: Of each box the mask of its component, or what it is written as; None for boxes
            alone.
    """

    boxes: np.ndarray
    thresholds: np.ndarray
    masks: Sequence[Any] | None = None


def boxes_from_cam(
    cam: np.ndarray,
    thresholds: Sequence[float] | None = None,
    nms_iou: float | None = NMS_IOU,
    rule: Rule = "paper",
    cell_size: float | tuple[float, float] = 1.0,
    image_size_hw: tuple[float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the boxes of one activation map (DAP, section 3.1, eqs. 1-6).

    ``rule='paper'``: the map is normalised to [0, 1] (eq. 1); for each threshold τ the map is
    M = CAM · 1{CAM > τ} (eq. 2), its 4-connected components with at least half the cells of the
    largest one are kept, and each gets the box whose mean and variance equal those of its own
    weighted cells (eqs. 3-6), cell centres at +0.5, at least one cell wide and high. Boxes are
    scaled to pixels and clipped; the boxes of all thresholds are merged by NMS, in which the
    larger box wins and a box is dropped if its IoU with a kept one is above ``nms_iou``.

    ``rule='release'`` does what the official release does instead, so that the published
    statistics can be reproduced: no normalisation in here; a component is judged by the area of
    its bounding slice, at most four are kept per threshold (of slices as large as each other
    those that come later in scan order), everything above τ inside the slice counts with the
    weight CAM + 0.22; boxes are clipped to [0, W - 1] x [0, H - 1]; the IoU of the NMS takes
    widths and heights + 1, and a box is dropped from IoU >= ``nms_iou`` on.

    ``rule='extent'`` is ours and needs no constant of the classifier. Its maps are those of
    :func:`dap.cam.contrast.contrasted_maps`; here the map is normalised as in
    ``'paper'`` and enlarged, bilinear between cell centres; the thresholds are multiples of the
    map's own threshold by Otsu's method; the box of a component is what encloses it; the area
    filter counts the cells of its holes, too, and the NMS is that of ``'paper'``. See
    :func:`dap.cam.extents.extent_boxes`.

    Args:
        cam: One map, finite, shape (H, W). ``'release'`` expects the mean of the normalised maps
            of all scales, values in [0, 1].
        thresholds: Values of τ, each in [0, 1); under ``'extent'`` positive multiples of Otsu's
            threshold. Defaults to the rule's own, see :func:`dap.cam.default_thresholds`.
        nms_iou: IoU threshold of the merging NMS in (0, 1]; None for no NMS.
        rule: ``'paper'``, ``'release'`` or ``'extent'``.
        cell_size: Pixels per cell: one number, or (y, x).
        image_size_hw: Height and width of the image in pixels that clip the boxes. Without it,
            the map itself is the image.

    Returns:
        Boxes, xyxy, half-open, float64, shape (N, 4), and their scores, shape (N,), best first.
        The score is the area that the NMS ranks by, in square pixels. A constant map has no box
        (eq. 1 is undefined for it): shapes (0, 4) and (0,). Constant is a map whose values differ
        by at most 1e-5 of the largest magnitude: float32 leaves such noise.

    Raises:
        ValueError: If the map is not 2-D, is empty or not finite, or a setting is out of range.
    """
    boxes = box_candidates(cam, thresholds, rule, cell_size, image_size_hw).boxes
    keep, areas = nms_larger_first(boxes, nms_iou, rule)
    return boxes[keep], areas


def box_candidates(
    cam: np.ndarray,
    thresholds: Sequence[float] | None = None,
    rule: Rule = "paper",
    cell_size: float | tuple[float, float] = 1.0,
    image_size_hw: tuple[float, float] | None = None,
    with_masks: bool = False,
) -> Candidates:
    """Find the boxes of one map at each threshold, before they are merged.

    Arguments and errors are those of :func:`boxes_from_cam`. Boxes stand in the order of the
    thresholds; within one, components stand in scan order (``'paper'``), from the top down
    (``'extent'``), or by falling area of their slice, later ones in scan order first if equal
    (``'release'``).

    ``with_masks`` adds the :class:`~dap.cam.masks.ComponentMask` that each box was made of, in
    pixels: under ``'extent'`` what the enlarged map has above the threshold within the outline of
    the component, its holes left out; under ``'paper'`` the component, enlarged by
    :func:`~dap.cam.masks.level_set`; under ``'release'`` likewise all that is above τ inside the
    component's bounding slice, which is what the release fits its box to.
    """
    cam, low, high = _checked_map(cam)
    taus = checked_thresholds(thresholds, rule)
    cell_y, cell_x = _pair(cell_size)
    height, width = _checked_size(image_size_hw, cam.shape[0] * cell_y, cam.shape[1] * cell_x)
    if _is_flat(low, high):
        return Candidates(np.zeros((0, 4)), np.zeros(0, int), [] if with_masks else None)
    limit_y, limit_x = height, width
    size_cells = height / cell_y, width / cell_x
    masks: list[ComponentMask] = []
    if rule == "extent":
        found = extent_boxes((cam - low) / (high - low), taus, size_cells, with_masks)
        boxes, index = found.boxes, found.thresholds
        masks = [ComponentMask(cells, (1 / found.factor,) * 2) for cells in found.masks]
    else:
        if rule == "paper":
            cam = (cam - low) / (high - low)
            profiles, index, components = _paper_profiles(cam, taus)
        else:
            profiles, index, components = _release_profiles(cam, taus)
            limit_y, limit_x = height - 1, width - 1
        boxes = _moment_boxes(profiles)
        if with_masks:
            pairs = zip(components, taus[index].tolist(), strict=True)
            masks = [level_set(cam, own, tau, size_cells) for own, tau in pairs]
    boxes *= np.array([cell_x, cell_y, cell_x, cell_y])
    np.maximum(boxes, 0, out=boxes)
    np.minimum(boxes, np.array([limit_x, limit_y, limit_x, limit_y]), out=boxes)
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if not with_masks:
        return Candidates(boxes[inside], index[inside])
    kept = [masks[i].scaled(cell_y, cell_x) for i in np.flatnonzero(inside)]
    return Candidates(boxes[inside], index[inside], kept)


def is_constant(cam: np.ndarray) -> bool:
    """Whether the values of a map differ by no more than rounding noise: it has no box then."""
    return _is_flat(float(cam.min()), float(cam.max()))


def nms_larger_first(
    boxes: np.ndarray, nms_iou: float | None = NMS_IOU, rule: Rule = "paper"
) -> tuple[np.ndarray, np.ndarray]:
    """Merge boxes by non-maximum suppression in which the larger box wins.

    Args:
        boxes: xyxy, half-open, in pixels, shape (N, 4). Of two as large as each other the first
            wins.
        nms_iou: IoU threshold in (0, 1]; None keeps every box.
        rule: ``'paper'`` drops above the threshold; ``'release'`` from the threshold on, with an
            IoU in which the width and the height of boxes count one pixel more.

    Returns:
        Indices of the boxes kept, largest first, shape (M,), and their areas in square pixels,
        shape (M,).

    Raises:
        ValueError: If ``nms_iou`` is out of range.
    """
    if nms_iou is not None and not 0 < nms_iou <= 1:
        raise ValueError(f"nms_iou: expected a value in (0, 1] or None, found {nms_iou}")
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = sides[:, 0] * sides[:, 1]
    if len(boxes) < 2:
        return np.arange(len(boxes)), areas
    order = (-areas).argsort(kind="stable")
    areas = areas[order]
    if nms_iou is None:
        return order, areas
    overlaps = _pairwise_iou(boxes[order], 1.0 if rule == "release" else 0.0)
    suppresses = overlaps >= nms_iou if rule == "release" else overlaps > nms_iou
    keep = np.ones(len(boxes), bool)
    winners, losers = np.nonzero(suppresses)
    for winner, loser in zip(winners.tolist(), losers.tolist(), strict=True):
        if winner < loser and keep[winner]:
            keep[loser] = False
    return order[keep], areas[keep]


def _is_flat(low: float, high: float) -> bool:
    return high - low <= FLAT * max(abs(low), abs(high))


def _checked_map(cam: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Check a map; give it in float64, with its smallest and its largest value."""
    cam = np.asarray(cam)
    if cam.ndim != 2 or cam.size == 0:
        raise ValueError(f"cam: expected one map of shape (H, W), found shape {cam.shape}")
    cam = cam.astype(np.float64)
    low, high = float(cam.min()), float(cam.max())  # NaN where the map has one
    if not (low > -_TOO_LARGE and high < _TOO_LARGE):
        bad = cam.size - int((abs(cam) < _TOO_LARGE).sum())
        raise ValueError(
            f"cam: {bad} of {cam.size} cells are NaN or infinite; expected finite "
            "values below 1e300. Look for NaN in the classifier's weights or an overflow of half "
            "precision"
        )
    return cam, low, high


def _checked_size(
    image_size_hw: tuple[float, float] | None, map_height: float, map_width: float
) -> tuple[float, float]:
    if image_size_hw is None:
        return map_height, map_width
    height, width = (float(side) for side in image_size_hw)
    if not (0 < height < np.inf and 0 < width < np.inf):
        raise ValueError(f"image_size_hw: expected positive pixels, found {image_size_hw!r}")
    return height, width


def _pair(cell_size: float | tuple[float, float]) -> tuple[float, float]:
    pair = np.empty(2)
    pair[:] = cell_size
    cell_y, cell_x = pair.tolist()
    if not (0 < cell_y < np.inf and 0 < cell_x < np.inf):
        raise ValueError(f"cell_size: expected positive pixels per cell, found {cell_size!r}")
    return cell_y, cell_x


def _components(cam: np.ndarray, taus: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label the 4-connected components of all thresholds in one pass.

    The thresholded maps stand one below the other, an empty row between them.

    Returns:
        Labels, 0 outside, shape (T, H, W); OpenCV's statistics per component (left, top, width,
        height, cells), with ``top`` counted over the whole stack, shape (K, 5); and the threshold
        index of each component, shape (K,).
    """
    height, width = cam.shape
    stack = np.zeros((len(taus), height + 1, width), np.uint8)
    np.greater(cam, taus[:, None, None], out=stack[:, :-1].view(bool))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        stack.reshape(-1, width), connectivity=4, ltype=cv2.CV_32S
    )
    index = stats[1:, cv2.CC_STAT_TOP] // (height + 1)
    return labels.reshape(stack.shape)[:, :-1], stats[1:], index


def _paper_profiles(
    cam: np.ndarray, taus: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Iterator[np.ndarray]]:
    """Sum M over the columns and over the rows of each component that passes the area filter.

    Returns:
        Sums of the weights in each column and in each row, shape (K, 2, max(H, W)), zeros behind
        the shorter side; each component's threshold index, shape (K,); and, when they are asked
        for, its cells, bool, shape (H, W).
    """
    labels, stats, index = _components(cam, taus)
    cells = stats[:, cv2.CC_STAT_AREA]
    largest = np.zeros(len(taus), cells.dtype)
    np.maximum.at(largest, index, cells)
    keep = 2 * cells >= largest[index]
    index = index[keep]
    height, width = cam.shape
    length = max(height, width)
    first_bin = np.zeros(len(keep) + 1, np.int64)  # by label; what is left out counts in front
    first_bin[1:][keep] = np.arange(1, len(index) + 1) * (2 * length)
    first = first_bin.take(labels)
    bins = np.empty((2, *labels.shape), np.int64)
    np.add(first, np.arange(width), out=bins[0])
    np.add(first, np.arange(length, length + height)[:, None], out=bins[1])
    weights = np.empty(bins.shape)
    weights[:] = cam
    profiles = np.bincount(bins.ravel(), weights.ravel(), (len(index) + 1) * 2 * length)
    numbers = np.flatnonzero(keep) + 1
    own_cells = (labels[i] == number for i, number in zip(index, numbers, strict=True))
    return profiles.reshape(-1, 2, length)[1:], index, own_cells


def _release_profiles(
    cam: np.ndarray, taus: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Iterator[np.ndarray]]:
    """As :func:`_paper_profiles`, with the components and weights of the official release."""
    height, width = cam.shape
    labels, stats, index = _components(cam, taus)
    largest = _largest_slices(stats, index)
    index, stats = index[largest], stats[largest]
    start = stats[:, :2]  # left, top
    start[:, 1] -= index * (height + 1)
    end = start + stats[:, 2:4]
    at = np.arange(max(height, width))
    inside = ((at >= start[..., None]) & (at < end[..., None])).astype(np.float64)
    weights = np.where(labels[index], cam + _RELEASE_WEIGHT_OFFSET, 0.0)
    profiles = np.zeros(inside.shape)
    profiles[:, 0, :width] = np.einsum("kyx,ky->kx", weights, inside[:, 1, :height])
    profiles[:, 1, :height] = np.einsum("kyx,kx->ky", weights, inside[:, 0, :width])
    cells = (
        (labels[i] > 0) & np.outer(rows[:height], columns[:width]).astype(bool)
        for i, (columns, rows) in zip(index, inside, strict=True)
    )
    return profiles * inside, index, cells


def _largest_slices(stats: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Components that the official release keeps, by threshold and falling area of their slice.

    The release sorts by rising area and goes through the result from its end, so that the last of
    equal ones in scan order comes first. (Its sort is not stable: among more than 16 components
    with different areas the order of equal ones depends on its version of numpy.)
    """
    areas = stats[:, cv2.CC_STAT_WIDTH] * stats[:, cv2.CC_STAT_HEIGHT]
    order = np.lexsort((-np.arange(len(areas)), -areas, index))
    areas, index = areas[order], index[order]
    largest = index.searchsorted(index)  # where the components of the same threshold begin
    rank = np.arange(len(order)) - largest
    return order[(2 * areas >= areas[largest]) & (rank < _RELEASE_MAX_COMPONENTS)]


def _moment_boxes(profiles: np.ndarray) -> np.ndarray:
    """Fit a box to each component's weights by mean and variance (DAP, eqs. 3-6).

    Args:
        profiles: Sums of the weights in each column and in each row, shape (K, 2, L).

    Returns:
        xyxy in cells, at least one cell wide and high, shape (K, 4).
    """
    centres = np.arange(0.5, profiles.shape[2])
    total = profiles.sum(axis=2)
    # Matrix products would be shorter, but BLAS's last bits depend on K.
    mean = np.einsum("kal,l->ka", profiles, centres) / total
    offset = centres - mean[..., None]
    variance = np.einsum("kal,kal,kal->ka", profiles, offset, offset) / total
    half = np.maximum(np.sqrt(12 * variance), 1.0) / 2
    return np.concatenate([mean - half, mean + half], axis=1)


def _pairwise_iou(boxes: np.ndarray, extra: float) -> np.ndarray:
    """IoU of each box with each, shape (N, N); ``extra`` is added to widths and heights."""
    start = np.maximum(boxes[:, None, :2], boxes[:, :2])
    end = np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    sides = np.maximum(end - start + extra, 0)
    overlap = sides[..., 0] * sides[..., 1]
    areas = overlap.diagonal()
    return overlap / (areas[:, None] + areas - overlap)
