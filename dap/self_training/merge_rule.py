"""Merge detections with the pseudo boxes of an image (second round)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from dap.evaluation.localization_counts import overlaps
from dap.store.shard import DECIMALS, NO_THRESHOLD

from .box_detector import Detections


@dataclass(frozen=True)
class MergeRule:
    """How detections and the boxes of a store are merged.

    Attributes:
        min_score: Minimum score of detections to keep; the best one of each class is always kept.
        max_overlap: A box of the store is kept if its IoU with each kept detection is at most this.

    Raises:
        ValueError: If a value is outside [0, 1].
    """

    min_score: float = 1.0
    max_overlap: float = 0.8

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: expected a value in [0, 1], found {value}")

    def as_json(self) -> dict[str, float]:
        """The rule as a JSON object, for the manifest of a store."""
        return asdict(self)


def merged_rows(
    boxes: np.ndarray,
    labels: np.ndarray,
    thresholds: np.ndarray,
    detections: Detections,
    size_hw: tuple[int, int],
    rule: MergeRule,
) -> list[list[float]]:
    """Merge the boxes of an image with the detections of its classes.

    Args:
        boxes: Boxes of the store, xyxy, half-open, in pixels, shape (N, 4).
        labels: Label of each box; these are the classes of the image, shape (N,).
        thresholds: Index of the threshold of each box, shape (N,).
        detections: The detections; those of other classes are left out.
        size_hw: Height and width of the image in pixels; detections are clipped to it.
        rule: How to merge.

    Returns:
        Rows of x1, y1, x2, y2, label and index of the threshold, class by class: detections by
        descending score, with 255 for the threshold, then the kept boxes in their order. Detections
        less than a pixel wide or high are left out.
    """
    clipped = _clipped(detections.boxes, size_hw)
    large_enough = (clipped[:, 2:] - clipped[:, :2] >= 1).all(axis=1)
    rows: list[list[float]] = []
    for label in np.unique(labels).tolist():
        chosen = np.flatnonzero(large_enough & (detections.labels == label))
        chosen = chosen[np.argsort(-detections.scores[chosen], kind="stable")]
        confident = detections.scores[chosen] >= rule.min_score
        confident[:1] = True
        detected = clipped[chosen[confident]]
        rows += [[*box, label, NO_THRESHOLD] for box in detected.tolist()]
        of_class = np.flatnonzero(labels == label)
        covered = overlaps(boxes[of_class], detected).max(axis=1, initial=0) > rule.max_overlap
        of_class = of_class[~covered]
        kept = zip(boxes[of_class].tolist(), thresholds[of_class].tolist(), strict=True)
        rows += [[*box, label, tau] for box, tau in kept]
    return rows


def _clipped(boxes: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Clip boxes to the image, and round them as a store does."""
    height, width = size_hw
    limits = np.array([width, height, width, height], np.float64)
    return np.round(np.clip(boxes, 0, limits), DECIMALS)
