"""Boxes from one activation map: thresholds, components, boxes, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .extents import extent_boxes
from .masks import ComponentMask, level_set
from .moments import moment_boxes, paper_profiles, release_profiles
from .rules import Rule, checked_thresholds

NMS_IOU = 0.8

FLAT = 1e-5  # a map is constant if its range is at most this share of its largest magnitude
_TOO_LARGE = 1e300  # limit of the magnitude, above which differences of values overflow


class Candidates(NamedTuple):
    """Boxes of one map before non-maximum suppression.

    Attributes:
        boxes: xyxy, half-open, clipped, in pixels, float64, shape (N, 4).
        thresholds: Index of the threshold of each box, shape (N,).
        masks: The mask of each box's component, or its encoding; None if there are no masks.
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
    largest one are kept, and each gets the box whose mean and variance equal those of its
    weighted cells (eqs. 3-6), cell centres at +0.5, at least one cell wide and high. Boxes are
    scaled to pixels and clipped. The boxes of all thresholds are merged by NMS: the larger box is
    kept, and a box is dropped if its IoU with a kept one is above ``nms_iou``.

    ``rule='release'`` follows the official release, to reproduce the published statistics: the
    map is not normalised here; the area of a component is that of its bounding slice; at most
    four components are kept per threshold (among slices of equal area, the later ones in scan
    order); all cells above τ inside the slice have the weight CAM + 0.22; boxes are clipped to
    [0, W - 1] x [0, H - 1]; the IoU of the NMS adds 1 to widths and heights, and a box is dropped
    if its IoU is at least ``nms_iou``.

    ``rule='extent'`` is not from the paper. It does not depend on constants of the classifier. It
    expects maps of :func:`dap.cam.contrast.contrasted_maps`. The map is normalised as in
    ``'paper'`` and enlarged, bilinear between cell centres; the thresholds are multiples of the
    map's Otsu threshold; the box of a component encloses its cells; the area filter also counts
    the cells of holes, and the NMS is that of ``'paper'``. See
    :func:`dap.cam.extents.extent_boxes`.

    Args:
        cam: One map, finite, shape (H, W). ``'release'`` expects the mean of the normalised maps
            of all scales, values in [0, 1].
        thresholds: Values of τ, each in [0, 1); under ``'extent'`` positive multiples of Otsu's
            threshold. Defaults to those of the rule, see :func:`dap.cam.default_thresholds`.
        nms_iou: IoU threshold of the NMS in (0, 1]; None for no NMS.
        rule: ``'paper'``, ``'release'`` or ``'extent'``.
        cell_size: Pixels per cell: one number, or (y, x).
        image_size_hw: Height and width of the image in pixels, to which boxes are clipped.
            Defaults to the size of the map.

    Returns:
        Boxes, xyxy, half-open, float64, shape (N, 4), and their scores, shape (N,), best first.
        The score is the area of the box in square pixels, by which the NMS ranks. A constant map
        has no box, because eq. 1 is undefined for it: shapes (0, 4) and (0,). A map is constant if
        its range is at most 1e-5 of its largest magnitude, the size of rounding errors in float32.

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
    """Find the boxes of one map at each threshold, before NMS.

    Arguments and errors are those of :func:`boxes_from_cam`. Boxes are in the order of the
    thresholds. The components of a threshold are in scan order (``'paper'``), from top to bottom
    (``'extent'``), or by decreasing area of their slice, with slices of equal area in
    reverse scan order (``'release'``).

    ``with_masks`` adds the :class:`~dap.cam.masks.ComponentMask` of each box, in pixels. With
    ``'extent'`` it has the cells of the enlarged map above the threshold and within the outline of
    the component, without its holes. With ``'paper'`` it is the component, enlarged by
    :func:`~dap.cam.masks.level_set`. With ``'release'`` it is computed in the same way from all
    cells above τ inside the bounding slice, to which the release fits its box.
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
        extents = extent_boxes((cam - low) / (high - low), taus, size_cells, with_masks)
        boxes, index = extents.boxes, extents.thresholds
        masks = [ComponentMask(cells, (1 / extents.factor,) * 2) for cells in extents.masks]
    else:
        if rule == "paper":
            cam = (cam - low) / (high - low)
            sums, index, components = paper_profiles(cam, taus)
        else:
            sums, index, components = release_profiles(cam, taus)
            limit_y, limit_x = height - 1, width - 1
        boxes = moment_boxes(sums)
        if with_masks:
            pairs = zip(components, taus[index].tolist(), strict=True)
            masks = [level_set(cam, component, tau, size_cells) for component, tau in pairs]
    boxes *= np.array([cell_x, cell_y, cell_x, cell_y])
    np.maximum(boxes, 0, out=boxes)
    np.minimum(boxes, np.array([limit_x, limit_y, limit_x, limit_y]), out=boxes)
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if not with_masks:
        return Candidates(boxes[inside], index[inside])
    kept = [masks[i].scaled(cell_y, cell_x) for i in np.flatnonzero(inside)]
    return Candidates(boxes[inside], index[inside], kept)


def is_constant(cam: np.ndarray) -> bool:
    """Whether the range of a map is within rounding errors, so that it has no box."""
    return _is_flat(float(cam.min()), float(cam.max()))


def nms_larger_first(
    boxes: np.ndarray, nms_iou: float | None = NMS_IOU, rule: Rule = "paper"
) -> tuple[np.ndarray, np.ndarray]:
    """Merge boxes by non-maximum suppression that keeps the larger box.

    Args:
        boxes: xyxy, half-open, in pixels, shape (N, 4). Of equal areas, the first takes precedence.
        nms_iou: IoU threshold in (0, 1]; None keeps every box.
        rule: ``'release'`` drops a box if its IoU is at least the threshold, and adds one pixel to
            widths and heights in the IoU. The other rules drop it if its IoU is above the
            threshold.

    Returns:
        Indices of the kept boxes, largest first, shape (M,), and their areas in square pixels,
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
    """Check a map; return it in float64, with its smallest and its largest value."""
    cam = np.asarray(cam)
    if cam.ndim != 2 or cam.size == 0:
        raise ValueError(f"cam: expected one map of shape (H, W), found shape {cam.shape}")
    cam = cam.astype(np.float64)
    low, high = float(cam.min()), float(cam.max())  # NaN if the map has one
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


def _pairwise_iou(boxes: np.ndarray, extra: float) -> np.ndarray:
    """IoU of all pairs of boxes, shape (N, N); ``extra`` is added to widths and heights."""
    start = np.maximum(boxes[:, None, :2], boxes[:, :2])
    end = np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    sides = np.maximum(end - start + extra, 0)
    overlap = sides[..., 0] * sides[..., 1]
    areas = overlap.diagonal()
    return overlap / (areas[:, None] + areas - overlap)
