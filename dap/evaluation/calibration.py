"""Fit the thresholds of a run to its classifier, using some images with true boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dap.cam import boxes_from_cam
from dap.pseudo_boxes.settings import PseudoBoxSettings
from dap.pseudo_boxes.stored_maps import StoredMap
from dap.store.reader import PseudoBoxStore

from .evaluate import Request, evenly_spread
from .ground_truth import GroundTruth
from .localization import overlaps
from .matching import Matching

FACTORS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.6, 1.8)
IOUS = np.arange(0.5, 1, 0.05)
CONFIDENCE = 0.95  # another factor must beat 1 in this share of the resamples
_RESAMPLES = 1000


class Calibration(NamedTuple):
    """Result of a calibration.

    Attributes:
        images: Number of maps that were evaluated.
        thresholds: Thresholds of the run times each factor, shape (F, T).
        figures: Per factor: total number of boxes; then, in percent, average recall over IoU
            .5:.95, share of boxes that fit an object (IoU .5), and the harmonic mean of these two.
            Shape (F, 4).
        chosen: Index of the factor to use.
    """

    images: int
    thresholds: np.ndarray
    figures: np.ndarray
    chosen: int


def calibrate(
    store: PseudoBoxStore,
    truth: GroundTruth,
    maps_of: Callable[[Sequence[Request]], Iterable[StoredMap]],
    most: int | None = 100,
) -> Calibration:
    """Find the factor by which to multiply all thresholds of a run.

    A single factor is fitted because, with a hundred images, choosing among all sets of thresholds
    gives worse boxes than the default. The factor is 1 unless another one is significantly better.

    Args:
        store: A run of Step 2 with the rule ``'extent'``.
        truth: True boxes of some of its images, with classes.
        maps_of: Function that returns the maps of images, such as :meth:`StoredMaps.of_images`.
        most: Maximum number of images, spaced evenly; None for all that have true boxes.

    Returns:
        The figures of all factors, and the factor to use.

    Raises:
        ValueError: If the run's rule is another, the truth has no classes, or there is no map.
    """
    if store.rule != "extent":
        raise ValueError(f"{store.folder}: expected a run by rule='extent', found {store.rule!r}")
    if truth.categories is None:
        raise ValueError(f"a ground truth from {truth.layout} has no classes, and a map has one")
    settings = PseudoBoxSettings.from_store(store)
    thresholds = np.round(np.outer(FACTORS, settings.thresholds), 4)
    matching = Matching(store, truth, class_agnostic=False)
    indices = [i for i in sorted(matching.images) if matching.image(i).counted_labels()]
    images = [matching.image(indices[i]) for i in evenly_spread(len(indices), most)]
    counts = []
    stored_maps = maps_of([(image.file_name, image.counted_labels()) for image in images])
    for image, stored in zip(images, stored_maps, strict=True):
        for label, cam in stored.by_label.items():
            objects = image.truth_boxes[image.counted() & (image.truth_labels == label)]
            values = cam.maps[0].numpy()
            boxes = (
                boxes_from_cam(
                    values, row, settings.nms_iou, "extent", cam.cell_size, stored.size_hw
                )[0]
                for row in thresholds
            )
            counts.append([_count(boxes_of_factor, objects) for boxes_of_factor in boxes])
    if not counts:
        raise ValueError(f"{store.folder}: none of its images has true boxes and a map")
    array = np.array(counts, float)
    return Calibration(len(array), thresholds, figures_of(array.sum(axis=0)), choose(array))


def choose(counts: np.ndarray, seed: int = 0) -> int:
    """Choose the best factor if it beats 1 in nearly all bootstrap resamples, else 1.

    Args:
        counts: Per map and factor: numbers of boxes, objects, recalled objects (mean over
            IoU .5:.95) and boxes that fit, shape (N, F, 4).
        seed: Seed of the resampling.

    Returns:
        Index in :data:`FACTORS`.
    """
    images, one = len(counts), FACTORS.index(1.0)
    best = int(figures_of(counts.sum(axis=0))[:, 3].argmax())
    draws = np.random.default_rng(seed).multinomial(images, [1 / images] * images, _RESAMPLES)
    resampled = np.einsum("bn,nfk->bfk", draws, counts[:, [best, one]])
    scores = figures_of(resampled)[..., 3]
    return best if (scores[:, 0] > scores[:, 1]).mean() >= CONFIDENCE else one


def figures_of(counts: np.ndarray) -> np.ndarray:
    """Compute the figures of :class:`Calibration` from summed counts."""
    boxes, objects, recalled, fitting = np.moveaxis(counts, -1, 0)
    recall = 100 * recalled / np.maximum(objects, 1)
    fit = 100 * fitting / np.maximum(boxes, 1)
    both = 2 * recall * fit / np.maximum(recall + fit, 1e-12)
    return np.stack([boxes, recall, fit, both], axis=-1)


def _count(boxes: np.ndarray, truth: np.ndarray) -> tuple[float, float, float, float]:
    if not len(boxes):
        return 0, len(truth), 0, 0
    ious = overlaps(boxes, truth)
    recalled = (ious.max(axis=0)[:, None] >= IOUS - 1e-9).mean(axis=1).sum()
    return len(boxes), len(truth), recalled, (ious.max(axis=1) >= IOUS[0]).sum()
