"""Masks against true masks: IoU, and PxAP of score maps, as published for localisation.

J. Choe, S. J. Oh, S. Lee, S. Chun, Z. Akata, H. Shim: Evaluating Weakly Supervised Object
Localization Methods Right, CVPR 2020; the code that its authors published is
github.com/clovaai/wsolevaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from .localization import LocalizationQuality
from .max_box_accuracy import SIDE, THRESHOLDS, score_map_in_unit_range

# Boxes, labels and masks (COCO's compressed RLE) of an image.
Objects = tuple[np.ndarray, np.ndarray, Sequence[dict[str, Any]]]


def mask_overlaps(
    masks: Sequence[Any], truth_masks: Sequence[Any], crowd: np.ndarray | None = None
) -> np.ndarray:
    """IoU of each mask with each of the ground truth; COCO's own.

    Args:
        masks: COCO's compressed RLE, N of them.
        truth_masks: Likewise of the same size, M of them.
        crowd: Whose overlap is the share of the mask that lies within, bool, shape (M,).

    Returns:
        In [0, 1], 0 for a mask without a pixel, float64, shape (N, M).

    Raises:
        ValueError: If they are not of one size.
    """
    sizes = {tuple(mask["size"]) for mask in (*masks, *truth_masks)}
    if len(sizes) > 1:
        raise ValueError(
            f"masks of an image have sizes (H, W) {sorted(sizes)}; expected one. Take ground truth "
            "of the same image files"
        )
    if not (len(masks) and len(truth_masks)):
        return np.zeros((len(masks), len(truth_masks)))
    crowd = np.zeros(len(truth_masks)) if crowd is None else crowd
    overlap = coco_mask.iou(list(masks), list(truth_masks), crowd.astype(np.uint8))
    return np.nan_to_num(overlap)


def union(
    masks: Sequence[dict[str, Any]], chosen: np.ndarray, size_hw: tuple[int, int]
) -> np.ndarray:
    """All pixels of some masks, bool, shape (H, W)."""
    some = [masks[i] for i in np.flatnonzero(chosen).tolist()]
    merged: np.ndarray = coco_mask.decode(coco_mask.merge(some)) if some else np.zeros(size_hw)
    return merged.astype(bool)


class MaskQuality:
    """Figures of :class:`LocalizationQuality` by the IoU of masks in place of that of boxes.

    Of each image, the box that counts as its one box is the largest, as for boxes.

    Args:
        class_agnostic: Whether all are of one class.
    """

    NAMES = ("gt_known_localization", "corloc", "precision", "recall", "average_recall")

    def __init__(self, class_agnostic: bool = False) -> None:
        self._quality = LocalizationQuality(class_agnostic=class_agnostic)
        self._best: list[float] = []

    def add(self, found: Objects, truth: Objects, ignored: np.ndarray) -> None:
        """Count an image.

        Args:
            found: Boxes, xyxy, half-open, in pixels, shape (N, 4), labels (N,) and masks.
            truth: Those of the ground truth, M of them.
            ignored: Which true objects are to be ignored, bool, shape (M,).

        Raises:
            ValueError: If shapes or sizes do not fit.
        """
        (boxes, labels, masks), (truth_boxes, truth_labels, truth_masks) = found, truth
        overlap = mask_overlaps(masks, truth_masks, ignored)
        self._quality.add(
            boxes, labels, truth_boxes, truth_labels, truth_ignored=ignored, overlap=overlap
        )
        same = (labels[:, None] == truth_labels) | self._quality.class_agnostic
        best = np.where(same, overlap, 0).max(axis=0, initial=0)
        self._best += best[~ignored].tolist()

    def summary(self) -> dict[str, float | None]:
        """Compute the figures.

        Returns:
            In [0, 1], None where there is nothing to take a share of: ``mean_iou``, the mean over
            the objects of the highest IoU with a mask of their class, 0 without one; and those of
            :data:`NAMES`.
        """
        figures = self._quality.summary(worst=0)
        mean = float(np.mean(self._best)) if self._best else None
        return {"mean_iou": mean, **{name: figures[name] for name in self.NAMES}}


class PixelAveragePrecision:
    """PxAP: area under the curve of precision and recall of the pixels of score maps.

    1. A map is resized to 224 x 224 (cubic) and min-max normalised. A constant map becomes 0.
    2. The pixels of all maps are put together. At a threshold t those from t on are positive:
       precision is the share of them that is of an object, recall the share of the objects' pixels
       that is positive. Pixels to be ignored are neither.
    3. PxAP is the sum, over the thresholds 1, .999, …, .001, 0, of precision times the gain in
       recall since the threshold before.

    True masks are resized alike, to the nearest pixel. A pixel of an object counts as such even
    where it is to be ignored.

    Args:
        side: Size that maps and masks are resized to, in pixels; None leaves them as they are.
    """

    def __init__(self, side: int | None = SIDE) -> None:
        self.side, self.maps = side, 0
        self._edges = np.array([*THRESHOLDS, 1.0, 2.0])  # 1 itself is in the last bin
        self._of_objects, self._of_others = np.zeros((2, len(self._edges) - 1), np.int64)

    def add(
        self, score_map: np.ndarray, truth: np.ndarray, ignored: np.ndarray | None = None
    ) -> None:
        """Count the pixels of a map.

        Args:
            score_map: Any finite values, shape (H, W).
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
            ValueError: If no pixel is of an object.
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
