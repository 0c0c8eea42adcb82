"""Match boxes to objects as in COCO, and count the results per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

LOCALIZATION_IOUS = (0.3, 0.5, 0.7)  # those of MaxBoxAccV2
RECALL_IOUS = np.linspace(0.5, 0.95, 10).tolist()  # those of COCO's average recall
SIZES = ("small", "medium", "large")
_SIZE_LIMITS = (32.0**2, 96.0**2)  # square pixels
_UNMATCHED, _ON_IGNORED = -1, -2


def overlaps(
    boxes: np.ndarray, truth_boxes: np.ndarray, crowd: np.ndarray | None = None
) -> np.ndarray:
    """IoU of each box with each ground-truth box, computed by pycocotools.

    Args:
        boxes: xyxy, half-open, shape (N, 4).
        truth_boxes: In the same convention, shape (M, 4).
        crowd: Ground truth whose overlap is the share of the box inside it, as for COCO's crowds,
            bool, shape (M,).

    Returns:
        In [0, 1], 0 for a box without area, float64, shape (N, M).
    """
    objects, truth = (np.array(corners, np.float64) for corners in (boxes, truth_boxes))
    for corners in (objects, truth):
        corners[:, 2:] -= corners[:, :2]
    return coco_overlaps(objects, truth, crowd)


def coco_overlaps(objects: Any, truth: Any, crowd: np.ndarray | None = None) -> np.ndarray:
    """IoU by pycocotools, extended to empty lists; 0 instead of NaN for empty objects.

    Args:
        objects: N boxes, xywh, shape (N, 4), or a list of N masks, COCO's compressed RLE.
        truth: M boxes or masks.
        crowd: See :func:`overlaps`.

    Returns:
        In [0, 1], float64, shape (N, M).
    """
    if not (len(objects) and len(truth)):
        return np.zeros((len(objects), len(truth)))
    crowd = np.zeros(len(truth)) if crowd is None else crowd
    return np.nan_to_num(coco_mask.iou(objects, truth, crowd.astype(np.uint8)))


def match(overlap: Sequence[Sequence[float]], ignored: Sequence[bool], iou: float) -> list[int]:
    """Match boxes to objects one to one, greedily, as in COCO.

    Args:
        overlap: Overlap of each box, best box first, with each object, shape (N, M).
        ignored: Whether each object is ignored, length M. Ignored objects can be matched to several
            boxes, and only to boxes that match no other object.
        iou: Minimum overlap of a match.

    Returns:
        Index of the object per box, -1 for no match, -2 for a box on an ignored object.
    """
    free = [not is_ignored for is_ignored in ignored]
    matched = []
    for row in overlap:
        choice, best = _UNMATCHED, iou
        for index, value in enumerate(row):
            if free[index] and value >= best:
                choice, best = index, value
        if choice != _UNMATCHED:
            free[choice] = False
        elif any(skip and value >= iou for skip, value in zip(ignored, row, strict=True)):
            choice = _ON_IGNORED
        matched.append(choice)
    return matched


@dataclass
class ClassCounts:
    """Running counts of a class: arrays per size (3), per IoU of recall (10), per τ and IoU (T, 3).

    Attributes:
        taus: Number of thresholds T.
        found_images: Numbers of the images whose top box is correct.
        missed_images: Numbers of the images whose top box is wrong or absent.
    """

    taus: int
    found_images: list[int] = field(default_factory=list)
    missed_images: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.objects, self.matched_objects = np.zeros((2, len(SIZES)), np.int64)
        self.boxes, self.correct = np.zeros((2, len(SIZES)), np.int64)
        self.recalled = np.zeros(len(RECALL_IOUS), np.int64)
        self.largest, self.any = np.zeros((2, self.taus, len(LOCALIZATION_IOUS)), np.int64)

    @property
    def cases(self) -> int:
        """Number of images with an object that counts."""
        return len(self.found_images) + len(self.missed_images)

    def merge(self, other: ClassCounts) -> None:
        """Add the counts of another class."""
        self.found_images += other.found_images
        self.missed_images += other.missed_images
        names = ("objects", "matched_objects", "boxes", "correct", "recalled", "largest", "any")
        for name in names:
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
        """Add the boxes of this class in an image, best first, and its objects."""
        self._count_matches(boxes, truth, overlap, ignored)
        if ignored.all():
            return
        best = overlap[:, ~ignored].max(axis=1)
        correct = len(best) > 0 and best[0] >= 0.5
        (self.found_images if correct else self.missed_images).append(image)
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
        self.correct += _per_size(sizes[matched >= 0])
        self.objects += _per_size(truth_sizes[~ignored])
        self.matched_objects += _per_size(truth_sizes[matched[matched >= 0]])
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
