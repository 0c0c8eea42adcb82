"""Counts and mean sizes of pseudo boxes: the rows of the paper's Table A1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class BoxStatistics:
    """Running count and size of boxes.

    Args:
        boxes: Number of boxes so far.
        width: Sum of their widths in pixels.
        height: Sum of their heights in pixels.
    """

    def __init__(self, boxes: int = 0, width: float = 0.0, height: float = 0.0) -> None:
        self.boxes, self.width, self.height = boxes, width, height

    @classmethod
    def of(cls, boxes: np.ndarray) -> BoxStatistics:
        """Count boxes in pixels, xyxy, half-open, shape (N, 4)."""
        width, height = (boxes[:, 2:] - boxes[:, :2]).sum(axis=0)
        return cls(len(boxes), float(width), float(height))

    def add(self, row: Sequence[float]) -> None:
        """Add the ``as_row`` of others."""
        self.boxes += int(row[0])
        self.width += row[1]
        self.height += row[2]

    def as_row(self) -> list[float]:
        """Number of boxes, sum of widths, sum of heights."""
        return [self.boxes, round(self.width, 3), round(self.height, 3)]

    def summary(self, images: int) -> dict[str, Any]:
        """Boxes, boxes per image, and mean width and height in pixels (None without boxes)."""
        return {
            "boxes": self.boxes,
            "boxes_per_image": round(self.boxes / images, 4) if images else None,
            "mean_width": round(self.width / self.boxes, 2) if self.boxes else None,
            "mean_height": round(self.height / self.boxes, 2) if self.boxes else None,
        }
