"""Counts and mean sizes of pseudo boxes, as in the paper's Tables A1 and A2.

Sizes are summed as integers, in hundredths of a pixel, the precision of written coordinates. A sum
then depends neither on the order nor on how images are distributed over processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .shard import Shard, exact

UNITS = 100  # per pixel


def size_sums(boxes: np.ndarray) -> np.ndarray:
    """Count boxes and sum their sizes.

    Args:
        boxes: xyxy, half-open, in pixels, rounded to hundredths, shape (N, 4).

    Returns:
        Number of boxes, sum of widths and sum of heights in hundredths of a pixel, int64, shape
        (3,).
    """
    units = np.rint(boxes * UNITS).astype(np.int64)
    return np.array([len(boxes), *(units[:, 2:] - units[:, :2]).sum(axis=0)])


def mean_sizes(sums: np.ndarray, images: int) -> dict[str, Any]:
    """Return boxes, boxes per image, and mean width and height in pixels, None if unknown.

    Args:
        sums: From :func:`size_sums`; those of several groups of boxes can be added.
        images: Number of images.
    """
    boxes, width, height = sums.tolist()
    return {
        "boxes": boxes,
        "boxes_per_image": round(boxes / images, 4) if images else None,
        "mean_width": round(width / (UNITS * boxes), 2) if boxes else None,
        "mean_height": round(height / (UNITS * boxes), 2) if boxes else None,
    }


def count_right(records: Sequence[Mapping[str, Any]]) -> int | None:
    """Count the images whose top class is right; None if that is not known of all.

    Args:
        records: See :meth:`dap.store.writer.StoreWriter.write`.
    """
    top1: list[Any] = [record.get("top1") for record in records if "height" in record]
    return None if None in top1 else int(sum(top1))


def run_statistics(shards: Iterable[Shard]) -> dict[str, Any]:
    """Return the part of the summary about images and boxes."""
    images, right, sums = 0, 0, np.zeros(3, np.int64)
    right_is_known = True
    without_boxes: Counter[str] = Counter()
    for shard in shards:
        usable = shard.sizes_hw[0] > 0
        images += int(usable.sum())
        without_boxes.update(reason for row, reason in shard.reasons() if usable[row])
        sums += size_sums(exact(shard.bboxes))
        right_is_known &= shard.right is not None
        right += shard.right or 0
    return {
        "images": images,
        "top1": round(right / images, 4) if images and right_is_known else None,
        "images_without_boxes": without_boxes.total(),
        "without_boxes": dict(sorted(without_boxes.items())),
        "merged": mean_sizes(sums, images),
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
