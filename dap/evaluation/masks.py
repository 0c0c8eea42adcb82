"""Mask IoU, and PxAP of score maps as published for weakly supervised localisation.

PxAP: J. Choe, S. J. Oh, S. Lee, S. Chun, Z. Akata, H. Shim: Evaluating Weakly Supervised Object
Localization Methods Right, CVPR 2020; authors' code: github.com/clovaai/wsolevaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from .localization import LocalizationQuality
from .localization_counts import coco_overlaps
from .max_box_accuracy import SIDE, THRESHOLDS, score_map_in_unit_range

# Boxes, labels and masks (COCO's compressed RLE) of an image.
Objects = tuple[np.ndarray, np.ndarray, Sequence[dict[str, Any]]]


def mask_overlaps(
    masks: Sequence[Any], truth_masks: Sequence[Any], crowd: np.ndarray | None = None
) -> np.ndarray:
    """IoU of each mask with each ground-truth mask, computed by pycocotools.

    Args:
        masks: N masks, COCO's compressed RLE.
        truth_masks: M masks of the same size.
        crowd: Ground truth whose overlap is the share of the mask inside it, as for COCO's crowds,
            bool, shape (M,).

    Returns:
        In [0, 1], 0 for a mask without a pixel, float64, shape (N, M).

    Raises:
        ValueError: If the masks differ in size.
    """
    sizes = {tuple(mask["size"]) for mask in (*masks, *truth_masks)}
    if len(sizes) > 1:
        raise ValueError(
            f"masks of an image have sizes (H, W) {sorted(sizes)}; expected one. Use ground truth "
            "of the same image files"
        )
    return coco_overlaps(list(masks), list(truth_masks), crowd)


def union(
    masks: Sequence[dict[str, Any]], chosen: np.ndarray, size_hw: tuple[int, int]
) -> np.ndarray:
    """Union of the chosen masks, bool, shape (H, W)."""
    parts = [masks[i] for i in np.flatnonzero(chosen).tolist()]
    merged: np.ndarray = coco_mask.decode(coco_mask.merge(parts)) if parts else np.zeros(size_hw)
    return merged.astype(bool)


class MaskQuality:
    """Figures of :class:`LocalizationQuality` by the IoU of masks instead of boxes.

    The top box of a case is the largest box, as it is for boxes without scores.

    Args:
        class_agnostic: Whether classes are disregarded.
    """

    NAMES = ("gt_known_localization", "corloc", "precision", "recall", "average_recall")

    def __init__(self, class_agnostic: bool = False) -> None:
        self._quality = LocalizationQuality(class_agnostic=class_agnostic)
        self._best: list[float] = []

    def add(self, predicted: Objects, truth: Objects, ignored: np.ndarray) -> None:
        """Add an image.

        Args:
            predicted: Boxes, xyxy, half-open, in pixels, shape (N, 4), labels (N,) and N masks.
            truth: The same for the M objects of the ground truth.
            ignored: Whether each true object is ignored, bool, shape (M,).

        Raises:
            ValueError: If shapes or sizes do not fit.
        """
        (boxes, labels, masks), (truth_boxes, truth_labels, truth_masks) = predicted, truth
        overlap = mask_overlaps(masks, truth_masks, ignored)
        self._quality.add(
            boxes, labels, truth_boxes, truth_labels, truth_ignored=ignored, overlap=overlap
        )
        same_class = (labels[:, None] == truth_labels) | self._quality.class_agnostic
        best = np.where(same_class, overlap, 0).max(axis=0, initial=0)
        self._best += best[~ignored].tolist()

    def summary(self) -> dict[str, float | None]:
        """Compute the figures.

        Returns:
            Values in [0, 1], None if undefined: ``mean_iou``, the highest IoU of an object with
            a mask of its class (0 without one), averaged over the objects; and the figures of
            :data:`NAMES`.
        """
        figures = self._quality.summary(worst=0)
        mean = float(np.mean(self._best)) if self._best else None
        return {"mean_iou": mean, **{name: figures[name] for name in self.NAMES}}


class PixelAveragePrecision:
    """PxAP: area under the precision-recall curve of the pixels of score maps.

    1. A map is resized to 224 x 224 (cubic) and min-max normalised. A constant map becomes 0.
    2. The pixels of all maps are pooled. At a threshold t, pixels of at least t are positive:
       precision is the share of positive pixels on objects, recall the share of object pixels that
       are positive. Ignored pixels do not count.
    3. PxAP is the sum, over the thresholds 1, .999, …, .001, 0, of precision times the increase in
       recall from the previous threshold.

    True masks are resized to the same size by nearest neighbour. Object pixels count even if they
    are ignored too.

    Args:
        side: Size that maps and masks are resized to, in pixels; None for no resizing.
    """

    def __init__(self, side: int | None = SIDE) -> None:
        self.side, self.maps = side, 0
        self._edges = np.array([*THRESHOLDS, 1.0, 2.0])  # 1 itself is in the last bin
        self._of_objects, self._of_others = np.zeros((2, len(self._edges) - 1), np.int64)

    def add(
        self, score_map: np.ndarray, truth: np.ndarray, ignored: np.ndarray | None = None
    ) -> None:
        """Add the pixels of a map.

        Args:
            score_map: Finite values, shape (H, W).
            truth: Pixels of the objects of the map's class, bool, shape (H, W).
            ignored: Pixels that do not count, bool, shape (H, W). Defaults to none.

        Raises:
            ValueError: If shapes differ, or the map is not finite.
        """
        ignored = np.zeros_like(truth) if ignored is None else ignored
        if not score_map.shape == truth.shape == ignored.shape:
            raise ValueError(
                f"expected score_map, truth and ignored of one shape, found {score_map.shape}, "
                f"{truth.shape}, {ignored.shape}"
            )
        scores = score_map_in_unit_range(score_map, self.side)
        truth, ignored = (self._resized(mask) for mask in (truth, ignored))
        self._of_objects += np.histogram(scores[truth], self._edges)[0]
        self._of_others += np.histogram(scores[~truth & ~ignored], self._edges)[0]
        self.maps += 1

    def value(self) -> float:
        """PxAP of all maps, in [0, 1].

        Raises:
            ValueError: If no pixel belongs to an object.
        """
        right = self._of_objects[::-1].cumsum()
        if not right[-1]:
            raise ValueError("PixelAveragePrecision: no pixel of an object has been added")
        positive = right + self._of_others[::-1].cumsum()
        precision = right / np.maximum(positive, 1)
        return float((precision * np.diff(right, prepend=0)).sum() / right[-1])

    def _resized(self, mask: np.ndarray) -> np.ndarray:
        if self.side is None:
            return mask.astype(bool)
        size_wh = (self.side, self.side)
        resized = cv2.resize(mask.astype(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST)
        return resized.astype(bool)
