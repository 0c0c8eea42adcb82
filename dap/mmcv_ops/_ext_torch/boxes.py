"""Non-maximum suppression and overlaps of boxes (x1, y1, x2, y2)."""

import numpy as np
import torch
import torchvision
from torch import Tensor

from .common import at_least_float32, operator

NAIVE, LINEAR, GAUSSIAN = 0, 1, 2


@operator
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Keep the boxes whose IoU with each better kept box is at most ``iou_threshold``.

    Args:
        boxes: Shape (N, 4), xyxy.
        scores: Shape (N,).
        iou_threshold: A box is dropped if its IoU with a kept one is larger.
        offset: 0 or 1; width = x2 - x1 + offset.

    Returns:
        Indices of the kept boxes by descending score, int64, shape (K,).
    """
    boxes, scores = map(at_least_float32, (boxes, scores))
    if offset:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    # mmcv compares in float32; torchvision's CPU code in float64, where 0.1 is below float32's 0.1.
    threshold = float(np.float32(iou_threshold))
    return torchvision.ops.nms(boxes, scores.to(boxes.dtype), threshold)


def _overlaps(
    box: np.ndarray, area: np.floating, boxes: np.ndarray, areas: np.ndarray, offset: int
) -> np.ndarray:
    """Return the IoU of one box (4,) with columns of boxes (4, N), shape (N,)."""
    width = np.minimum(box[2], boxes[2]) - np.maximum(box[0], boxes[0]) + offset
    height = np.minimum(box[3], boxes[3]) - np.maximum(box[1], boxes[1]) + offset
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return inter / (area + areas - inter)


def _columns(boxes: Tensor, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a writable copy of boxes as columns (4, N) and their areas (N,)."""
    boxes = at_least_float32(boxes)
    columns = np.array(boxes.cpu().numpy().T, order="C")
    areas = (columns[2] - columns[0] + offset) * (columns[3] - columns[1] + offset)
    return columns, areas


def _decay(overlaps: np.ndarray, iou_threshold: float, sigma: float, method: int) -> np.ndarray:
    """Return the factors by which soft NMS lowers scores, for IoUs (N,)."""
    dtype = overlaps.dtype.type
    if method == GAUSSIAN:
        return np.exp(-(overlaps * overlaps) / dtype(sigma))
    lowered = dtype(0) if method == NAIVE else 1 - overlaps
    return np.where(overlaps >= dtype(iou_threshold), lowered, dtype(1))


def _drop_by_last(alive: np.ndarray) -> np.ndarray:
    """Return the order of the kept items if each dropped item is replaced by the last kept one.

    mmcv removes boxes in this way, which determines the order of equal scores.

    Args:
        alive: Which of N items are kept, bool, shape (N,).

    Returns:
        Indices of the kept items, int64, shape (K,).
    """
    count = int(alive.sum())
    order = np.arange(count)
    holes = np.flatnonzero(~alive[:count])
    order[holes] = (np.flatnonzero(alive[count:]) + count)[::-1][: len(holes)]
    return order


@operator
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes that overlap better ones (Soft-NMS), on the CPU.

    Args:
        boxes: Shape (N, 4), xyxy.
        scores: Shape (N,).
        dets: Output, shape (N, 5); its first K rows become boxes and lowered scores.
        iou_threshold: IoU threshold of the methods 0 and 1.
        sigma: Width of the Gaussian of method 2.
        min_score: Boxes whose score falls below it are dropped.
        method: 0 naive (drop), 1 linear, 2 gaussian.
        offset: 0 or 1; width = x2 - x1 + offset.

    Returns:
        Indices of the K boxes in the order of ``dets``, int64, shape (K,).
    """
    columns, areas = _columns(boxes, offset)
    scores = at_least_float32(scores)
    values = scores.cpu().numpy().astype(columns.dtype)
    indices = np.arange(len(values))
    position = 0
    while position < len(values):
        best = position + int(np.argmax(values[position:]))
        for array in (columns, areas, values, indices):
            array[..., [position, best]] = array[..., [best, position]]
        position += 1
        rest = slice(position, None)
        overlaps = _overlaps(
            columns[:, position - 1], areas[position - 1], columns[:, rest], areas[rest], offset
        )
        values[rest] *= _decay(overlaps, iou_threshold, sigma, method)
        alive = ~(values[rest] < values.dtype.type(min_score))
        if not alive.all():
            order = np.concatenate([np.arange(position), position + _drop_by_last(alive)])
            columns, areas = columns[:, order], areas[order]
            values, indices = values[order], indices[order]
    kept = np.concatenate([columns, values[None]]).T
    dets[: len(kept)] = torch.from_numpy(kept).to(dets)
    return torch.from_numpy(indices)


@operator
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group each kept box with the boxes that it suppresses.

    Args:
        dets: Boxes and scores, shape (N, 5).
        iou_threshold: A box is suppressed if its IoU with a better one is at least this.

    Returns:
        Per kept box, by descending score: its index, then those of the boxes it suppresses.
    """
    columns, areas = _columns(dets[:, :4], offset=0)
    order = dets[:, 4].sort(descending=True, stable=True).indices.cpu().numpy()
    threshold = columns.dtype.type(iou_threshold)
    groups = []
    while len(order):
        best, order = order[0], order[1:]
        overlaps = _overlaps(columns[:, best], areas[best], columns[:, order], areas[order], 0)
        matched = overlaps >= threshold
        groups.append([int(best), *order[matched].tolist()])
        order = order[~matched]
    return groups


@operator
def bbox_overlaps(
    bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int
) -> None:
    """Compute IoU (mode 0) or intersection over the first box's area (mode 1).

    Args:
        bboxes1: Shape (M, 4), xyxy.
        bboxes2: Shape (N, 4); M = N if ``aligned``.
        ious: Output, shape (M,) if ``aligned``, else (M, N).
        mode: 0 or 1.
        aligned: Compare boxes of the same row, instead of all pairs.
        offset: 0 or 1; width = x2 - x1 + offset.
    """
    boxes1, boxes2 = map(at_least_float32, (bboxes1, bboxes2))
    areas1, areas2 = (
        (b[:, 2] - b[:, 0] + offset) * (b[:, 3] - b[:, 1] + offset) for b in (boxes1, boxes2)
    )
    if not aligned:
        boxes1, areas1 = boxes1[:, None], areas1[:, None]
    top_left = torch.max(boxes1[..., :2], boxes2[..., :2])
    bottom_right = torch.min(boxes1[..., 2:], boxes2[..., 2:])
    inter = (bottom_right - top_left + offset).clamp_(min=0).prod(dim=-1)
    ious.copy_(inter / (areas1 if mode else areas1 + areas2 - inter))
