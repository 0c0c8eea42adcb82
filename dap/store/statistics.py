"""Counts and mean sizes of pseudo boxes, as in the paper's Tables A1 and A2.

Sizes are summed as integers, in hundredths of a pixel, the precision of written coordinates. A sum
then depends neither on the order nor on how images are distributed over processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

UNITS = 100  # per pixel


class BoxStatistics:
    """Running count and size of boxes.

    Args:
        boxes: Number of boxes so far.
        width: Sum of their widths in hundredths of a pixel.
        height: Sum of their heights in hundredths of a pixel.
    """

    def __init__(self, boxes: int = 0, width: int = 0, height: int = 0) -> None:
        self.boxes, self.width, self.height = boxes, width, height

    @classmethod
    def of(cls, boxes: np.ndarray) -> BoxStatistics:
        """Count boxes: xyxy, half-open, in pixels, rounded to hundredths, shape (N, 4)."""
        units = np.rint(boxes * UNITS).astype(np.int64)
        width, height = (units[:, 2:] - units[:, :2]).sum(axis=0).tolist()
        return cls(len(boxes), width, height)

    def add(self, row: Sequence[int]) -> None:
        """Add the :meth:`as_row` of other statistics."""
        self.boxes += row[0]
        self.width += row[1]
        self.height += row[2]

    def as_row(self) -> list[int]:
        """Return number of boxes, sum of widths and sum of heights."""
        return [self.boxes, self.width, self.height]

    def summary(self, images: int) -> dict[str, Any]:
        """Return boxes, boxes per image, and mean width and height in pixels, None if unknown."""
        divisor = UNITS * self.boxes
        return {
            "boxes": self.boxes,
            "boxes_per_image": round(self.boxes / images, 4) if images else None,
            "mean_width": round(self.width / divisor, 2) if self.boxes else None,
            "mean_height": round(self.height / divisor, 2) if self.boxes else None,
        }


def flat_boxes(records: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Return the boxes of all records, concatenated, float64, shape (N, 6)."""
    rows = [row for record in records for row in record.get("boxes", ())]
    return np.array(rows, dtype=np.float64).reshape(-1, 6)


class RunStatistics:
    """Running statistics of the images of a run, or of a part of it.

    Attributes:
        images: Number of images that could be used.
        failed: Number of images that could not be used.
        right: Number of images whose top class is right; None if that is not known of all.
        without_boxes: Number of images without boxes, per reason.
        merged: Statistics of the boxes after NMS.
    """

    def __init__(self) -> None:
        self.images = self.failed = 0
        self.right: int | None = 0
        self.without_boxes: Counter[str] = Counter()
        self.merged = BoxStatistics()

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Count images, see :meth:`dap.store.writer.StoreWriter.write`."""
        for record in records:
            self._add(record)
        self.merged.add(BoxStatistics.of(flat_boxes(records)[:, :4]).as_row())

    def _add(self, record: Mapping[str, Any]) -> None:
        if "height" not in record:
            self.failed += 1
            return
        self.images += 1
        if "reason" in record:
            self.without_boxes[record["reason"]] += 1
        if self.right is not None:
            self.right = None if record.get("top1") is None else self.right + record["top1"]

    def as_json(self) -> dict[str, Any]:
        """Return all counts, for :meth:`merge`."""
        return {
            "images": self.images,
            "failed": self.failed,
            "right": self.right,
            "without_boxes": dict(sorted(self.without_boxes.items())),
            "merged": self.merged.as_row(),
        }

    def merge(self, other: dict[str, Any]) -> None:
        """Add the :meth:`as_json` of another part."""
        self.images += other["images"]
        self.failed += other["failed"]
        if self.right is not None:
            self.right = None if other["right"] is None else self.right + other["right"]
        self.without_boxes.update(other["without_boxes"])
        self.merged.add(other["merged"])

    def summary(self) -> dict[str, Any]:
        """Return the part of the summary about images and boxes."""
        known = self.images and self.right is not None
        return {
            "images": self.images,
            "top1": round((self.right or 0) / self.images, 4) if known else None,
            "images_without_boxes": self.without_boxes.total(),
            "without_boxes": dict(sorted(self.without_boxes.items())),
            "merged": self.merged.summary(self.images),
        }


def summary_line(summary: dict[str, Any]) -> str:
    """Describe a run in one line: images, boxes per image, mean size, failures."""
    merged = summary["merged"]
    return (
        f"{summary['images']} images, {merged['boxes']} boxes, "
        f"{merged['boxes_per_image']} boxes per image, mean size {merged['mean_width']} x "
        f"{merged['mean_height']} px, images without a box: {summary['images_without_boxes']}, "
        f"failed images: {len(summary['failed'])}, top-1 {summary['top1']}"
    )
