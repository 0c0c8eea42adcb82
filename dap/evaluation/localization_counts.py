"""Match boxes to objects as COCO does, and count the results per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask

LOCALIZATION_IOUS = (0.3, 0.5, 0.7)  # those of MaxBoxAccV2
RECALL_IOUS = np.linspace(0.5, 0.95, 10).tolist()  # those of COCO's average recall
SIZES = ("small", "medium", "large")
_SIZE_LIMITS = (32.0**2, 96.0**2)  # square pixels
_NONE, _ON_IGNORED = -1, -2


def overlaps(
    boxes: np.ndarray, truth_boxes: np.ndarray, crowd: np.ndarray | None = None
) -> np.ndarray:
    """IoU of each box with each ground-truth box, computed by pycocotools.

    Args:
        boxes: xyxy, half-open, shape (N, 4).
        truth_boxes: Likewise, shape (M, 4).
        crowd: Whose overlap is the share of the box that lies within, bool, shape (M,).

    Returns:
        In [0, 1], 0 for a box without area, float64, shape (N, M).
    """
    if not (len(boxes) and len(truth_boxes)):
        return np.zeros((len(boxes), len(truth_boxes)))
    sides = [np.array(corners, np.float64) for corners in (boxes, truth_boxes)]
    for corners in sides:
        corners[:, 2:] -= corners[:, :2]
    crowd = np.zeros(len(truth_boxes)) if crowd is None else crowd
    return np.nan_to_num(coco_mask.iou(*sides, crowd.astype(np.uint8)))


def match(overlap: Sequence[Sequence[float]], ignored: Sequence[bool], iou: float) -> list[int]:
    """Match boxes to objects one to one, greedily, as COCO does.

    Args:
        overlap: Of each box, the best first, with each object, shape (N, M).
        ignored: Which objects are to be ignored, M long. They may be matched to several boxes, and
            only where no other object is left.
        iou: The least overlap of a match.

    Returns:
        Of each box the index of its object, -1 if it has none, -2 if it lies on an ignored one.
    """
    free = [not skipped for skipped in ignored]
    matched = []
    for row in overlap:
        choice, best = _NONE, iou
        for index, value in enumerate(row):
            if free[index] and value >= best:
                choice, best = index, value
        if choice != _NONE:
            free[choice] = False
        elif any(skipped and v >= iou for skipped, v in zip(ignored, row, strict=True)):
            choice = _ON_IGNORED
        matched.append(choice)
    return matched


@dataclass
class ClassCounts:
    """Running counts of a class; arrays by size (3), IoU of recall (10), τ and IoU (T, 3)."""

    taus: int
    found_images: list[int] = field(default_factory=list)
    missed_images: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.objects, self.found, self.boxes, self.right = np.zeros((4, len(SIZES)), np.int64)
        self.recalled = np.zeros(len(RECALL_IOUS), np.int64)
        self.largest, self.any = np.zeros((2, self.taus, len(LOCALIZATION_IOUS)), np.int64)

    @property
    def cases(self) -> int:
        """Images with an object that counts."""
        return len(self.found_images) + len(self.missed_images)

    def merge(self, other: ClassCounts) -> None:
        """Add the counts of another class."""
        self.found_images += other.found_images
        self.missed_images += other.missed_images
        for name in ("objects", "found", "boxes", "right", "recalled", "largest", "any"):
            total = getattr(self, name)
            total += getattr(other, name)

    def add(
        self,
        boxes: np.ndarray,
        taus: np.ndarray,
        truth: np.ndarray,
        ignored: np.ndarray,
        overlap: np.ndarray,
        image: int,
    ) -> None:
        """Count the boxes, the best first, and the objects of this class in an image."""
        self._count_matches(boxes, truth, overlap, ignored)
        if ignored.all():
            return
        best = overlap[:, ~ignored].max(axis=1)
        right = len(best) > 0 and best[0] >= 0.5
        (self.found_images if right else self.missed_images).append(image)
        areas = box_areas(boxes)
        for i in range(self.taus):
            at_tau = np.flatnonzero(taus == i)
            if len(at_tau):
                largest = best[at_tau[areas[at_tau].argmax()]]
                self.largest[i] += largest >= np.array(LOCALIZATION_IOUS)
                self.any[i] += best[at_tau].max() >= np.array(LOCALIZATION_IOUS)

    def _count_matches(
        self, boxes: np.ndarray, truth: np.ndarray, overlap: np.ndarray, ignored: np.ndarray
    ) -> None:
        rows, skipped = overlap.tolist(), ignored.tolist()
        matched = np.array(match(rows, skipped, 0.5), int)
        sizes, truth_sizes = _sizes(boxes), _sizes(truth)
        self.boxes += _per_size(sizes[matched != _ON_IGNORED])
        self.right += _per_size(sizes[matched >= 0])
        self.objects += _per_size(truth_sizes[~ignored])
        self.found += _per_size(truth_sizes[matched[matched >= 0]])
        for i, iou in enumerate(RECALL_IOUS):
            self.recalled[i] += sum(index >= 0 for index in match(rows, skipped, iou))


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Areas of boxes, xyxy, half-open, shape (N, 4): shape (N,)."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def _sizes(boxes: np.ndarray) -> np.ndarray:
    """Index in :data:`SIZES` of each box."""
    return np.searchsorted(_SIZE_LIMITS, box_areas(boxes), side="right")


def _per_size(sizes: np.ndarray) -> np.ndarray:
    return np.bincount(sizes, minlength=len(SIZES))
