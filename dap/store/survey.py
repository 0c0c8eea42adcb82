"""Counts, sizes and classes of all boxes of a store, per image and in all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .reader import PseudoBoxStore
from .shard import Shard

NEARLY_ALL, TINY = 0.95, 0.01  # share of an image's area
SIDE_EDGES = np.linspace(0.0, 1.0, 21)
ASPECT_EDGES = np.linspace(-3.0, 3.0, 25)
BINS = len(SIDE_EDGES) - 1, len(ASPECT_EDGES) - 1


class Survey(NamedTuple):
    """Counts of a store, per image and in all.

    Attributes:
        counts: Number of boxes per image, int32, shape (N,).
        largest: Share of each image that its largest box covers, float32, shape (N,); NaN without
            boxes.
        smallest: The same for the smallest box.
        labels: Label of the first box per image, int32, shape (N,); -1 without boxes.
        usable: Whether each image could be used, shape (N,).
        class_boxes: Number of boxes per class, int64, shape (K,).
        class_images: Number of images with a box of the class, per class, int64, shape (K,).
        sides: Histogram over ``SIDE_EDGES`` of the square root of the share of the image that a
            box covers.
        aspects: Histogram over ``ASPECT_EDGES`` of log2(width / height); values outside the edges
            are counted in the first and last bin.
    """

    counts: np.ndarray
    largest: np.ndarray
    smallest: np.ndarray
    labels: np.ndarray
    usable: np.ndarray
    class_boxes: np.ndarray
    class_images: np.ndarray
    sides: np.ndarray
    aspects: np.ndarray

    @property
    def images(self) -> int:
        """Number of images that could be used."""
        return int(self.usable.sum())

    @property
    def boxes(self) -> int:
        """Number of boxes."""
        return int(self.counts.sum())

    def share(self, condition: np.ndarray) -> float:
        """Share of the usable images for which a condition, shape (N,), holds; 0 without images."""
        return float((condition & self.usable).sum() / max(1, self.images))

    @property
    def share_empty(self) -> float:
        """Share of the images that have no box."""
        return self.share(self.counts == 0)

    @property
    def share_nearly_all(self) -> float:
        """Share of the images with a box that covers more than 95 % of the image."""
        return self.share(self.largest > NEARLY_ALL)

    @property
    def share_tiny(self) -> float:
        """Share of the images with a box that covers less than 1 % of the image."""
        return self.share(self.smallest < TINY)


def survey(store: PseudoBoxStore) -> Survey:
    """Count all boxes of a store, shard by shard; needs 17 bytes of memory per image."""
    return survey_shards(store.shards, len(store.categories))


def survey_shards(shards: Iterable[Shard], classes: int) -> Survey:
    """Count all boxes of shards, at least one, of a store with ``classes`` classes."""
    totals = [np.zeros(n, np.int64) for n in (classes, classes, *BINS)]
    parts = []
    for shard in shards:
        images, boxes = _of_shard(shard, classes)
        parts.append(images)
        for total, of_shard in zip(totals, boxes, strict=True):
            total += of_shard
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Survey(*columns, *totals)


def _of_shard(shard: Shard, classes: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the columns per image and the counts over all boxes of :class:`Survey`."""
    counts = np.diff(shard.starts)
    heights, widths = shard.sizes_hw
    rows = np.repeat(np.arange(len(shard)), counts)
    sides = (shard.bboxes[:, 2:] - shard.bboxes[:, :2]).astype(np.float64)
    shares = sides.prod(axis=1) / (heights[rows].astype(np.float64) * widths[rows])
    filled = counts > 0
    largest, smallest = (np.full(len(shard), np.nan, np.float32) for _ in range(2))
    labels = np.full(len(shard), -1, np.int32)
    if len(rows):
        firsts = shard.starts[:-1][filled]
        largest[filled] = np.maximum.reduceat(shares, firsts)
        smallest[filled] = np.minimum.reduceat(shares, firsts)
        labels[filled] = shard.labels[firsts]
    pairs = np.unique(rows.astype(np.int64) * classes + shard.labels) % max(1, classes)
    aspects = np.log2(sides[:, 0] / sides[:, 1]).clip(ASPECT_EDGES[0], ASPECT_EDGES[-1])
    images = [counts.astype(np.int32), largest, smallest, labels, heights > 0]
    return images, [
        np.bincount(shard.labels, minlength=classes),
        np.bincount(pairs, minlength=classes),
        np.histogram(np.sqrt(shares).clip(0, 1), SIDE_EDGES)[0],
        np.histogram(aspects, ASPECT_EDGES)[0],
    ]
