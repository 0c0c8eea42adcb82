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


class RunStatistics:
    """Running statistics of the images of a run.

    Args:
        thresholds: Values of τ of the run.
    """

    def __init__(self, thresholds: Sequence[float]) -> None:
        self.thresholds = thresholds
        self.with_boxes = 0
        self.merged = BoxStatistics()
        self.single = [BoxStatistics() for _ in thresholds]

    def add(self, record: dict[str, Any]) -> None:
        """Count the ``boxes`` and ``per_threshold`` of one image, see :func:`merged_boxes`."""
        boxes = record["boxes"]
        self.with_boxes += bool(boxes)
        widths = sum(box[2] - box[0] for box in boxes)
        heights = sum(box[3] - box[1] for box in boxes)
        self.merged.add([len(boxes), widths, heights])
        for own, row in zip(self.single, record["per_threshold"], strict=True):
            own.add(row)

    def summary(self, images: int) -> dict[str, Any]:
        """What the summary says of the boxes of so many images."""
        return {
            "images_without_boxes": images - self.with_boxes,
            "merged": self.merged.summary(images),
            "per_threshold": {
                str(tau): own.summary(images)
                for tau, own in zip(self.thresholds, self.single, strict=True)
            },
        }


def summary_line(summary: dict[str, Any]) -> str:
    """One line on a run: images, boxes per image, mean size, failures."""
    merged = summary["merged"]
    return (
        f"{summary['images']} images, {merged['boxes']} boxes, "
        f"{merged['boxes_per_image']} boxes per image, mean size {merged['mean_width']} x "
        f"{merged['mean_height']} px, {summary['images_without_boxes']} images without a box, "
        f"{len(summary['failed'])} images failed, top-1 {summary['top1']}"
    )
