"""MaxBoxAcc and MaxBoxAccV2 of score maps, as published for weakly supervised localisation.

J. Choe, S. J. Oh, S. Lee, S. Chun, Z. Akata, H. Shim: Evaluating Weakly Supervised Object
Localization Methods Right, CVPR 2020. Details that the paper does not define follow the authors'
code (github.com/clovaai/wsolevaluation), which the figures of the literature come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from .localization_counts import LOCALIZATION_IOUS, overlaps

SIDE = 224  # size of the maps in the published figures, in pixels
TOP = 255  # the largest value of a map
THRESHOLDS = np.arange(0, 1, 0.001)  # the best of these is used
_LEVELS = (THRESHOLDS * TOP).astype(int)


class MaxBoxAccuracy:
    """Accuracy of the boxes of thresholded score maps, at the best threshold and at fixed ones.

    1. A map is resized to 224 x 224 (cubic), min-max normalised and converted to integers from 0
       to 255 (rounded down). A constant map becomes 0.
    2. Pixels above ``int(255 * t)`` are foreground at the threshold t.
    3. Each contour of the foreground gives a box. Contours are the outlines of its components (8
       neighbours) and of their holes.
    4. A box is correct if its IoU with any ground-truth box reaches the threshold. The width of
       both is x2 - x1 + 1 as in the published code, whose boxes of contours end one pixel after
       the contour unless the map ends there.

    **MaxBoxAcc** is the share of maps whose largest contour (by area) has a correct box at IoU .5,
    at the best t of 0, .001, …, .999. For **MaxBoxAccV2**, any contour with a correct box
    suffices; it is the mean over IoU .3, .5, .7 of the highest shares, each at its own t. Both
    choose t with the ground truth; the shares at fixed thresholds do not.

    Args:
        side: Size that maps are resized to, in pixels; None for no resizing.
    """

    def __init__(self, side: int | None = SIDE) -> None:
        self.side = side
        self._images: dict[int, int] = {}
        self._correct: dict[int, np.ndarray] = {}

    def add(self, score_map: np.ndarray, truth_boxes: np.ndarray, label: int = 0) -> None:
        """Add the map of an image for one of its classes.

        Args:
            score_map: Finite values, at the size of the image or smaller, shape (H, W).
            truth_boxes: Ground truth of this class, xyxy, in pixels of the map, shape (M, 4),
                M > 0. As for ImageNet in the published code, corners are clipped to the last pixel
                and rounded down after resizing.
            label: The class.

        Raises:
            ValueError: If the map has another shape or is not finite, or there is no box.
        """
        unit_map = score_map_in_unit_range(score_map, self.side)
        image = (unit_map * TOP).astype(np.uint8)
        truth = self._truth(truth_boxes, score_map.shape)
        boxes, starts, largest, cut_of_level = _boxes_by_level(image)
        half_open = np.array([0.0, 0.0, 1.0, 1.0])  # the last pixels of both are inside
        best = overlaps(boxes + half_open, truth + half_open).max(axis=1)
        best_of_any = np.maximum.reduceat(best, starts)
        correct = [best[largest] >= 0.5, *(best_of_any >= iou for iou in LOCALIZATION_IOUS)]
        total = self._correct.get(label, np.zeros((), np.int32))
        self._correct[label] = total + np.array(correct)[:, cut_of_level]
        self._images[label] = self._images.get(label, 0) + 1

    @property
    def maps(self) -> int:
        """Number of added maps."""
        return sum(self._images.values())

    def summary(self, thresholds: Sequence[float] = ()) -> dict[str, Any]:
        """Compute the figures of all maps, and per class.

        Args:
            thresholds: Fixed thresholds in [0, 1), such as those of the run, for accuracies that
                do not use the ground truth to choose a threshold.

        Returns:
            Values in [0, 1]: ``max_box_acc``; ``max_box_acc_v2`` and its parts
            ``max_box_acc_v2_by_iou``; the best ``thresholds`` (the lowest ones of equal accuracy);
            ``at_fixed_thresholds``: per threshold ``max_contour`` (IoU .5) and ``all_contours``,
            the mean over the IoUs; and the number of ``images``. ``per_class`` has the same per
            label, at the thresholds that are best for all classes together, since the publication
            has one threshold per data set.

        Raises:
            ValueError: If there is no map, or a threshold is out of range.
        """
        if not self._images:
            raise ValueError("MaxBoxAccuracy: no map has been added")
        outside = [tau for tau in thresholds if not 0 <= tau < 1]
        if outside:
            raise ValueError(f"thresholds: expected values in [0, 1), found {outside}")
        total = np.sum(list(self._correct.values()), axis=0)
        chosen = total[:, _LEVELS].argmax(axis=1)

        def figures(correct: np.ndarray, images: int) -> dict[str, Any]:
            accuracy = correct / images
            best = accuracy[np.arange(len(correct)), _LEVELS[chosen]].tolist()
            return {
                "images": images,
                "max_box_acc": best[0],
                "max_box_acc_v2": float(np.mean(best[1:])),
                "max_box_acc_v2_by_iou": _by_iou(best[1:]),
                "at_fixed_thresholds": {
                    str(tau): _at_level(accuracy, int(tau * TOP)) for tau in thresholds
                },
            }

        taus = THRESHOLDS[chosen].round(3).tolist()
        return {
            **figures(total, self.maps),
            "thresholds": {"max_box_acc": taus[0], "max_box_acc_v2_by_iou": _by_iou(taus[1:])},
            "per_class": {
                label: figures(correct, self._images[label])
                for label, correct in sorted(self._correct.items())
            },
        }

    def _truth(self, boxes: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
        """Scale ground truth to whole pixels of the resized map."""
        boxes = np.asarray(boxes, np.float64)
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
            raise ValueError(
                f"truth_boxes: expected shape (M, 4) with M > 0, found {boxes.shape}. Leave images "
                "without an object of the class out"
            )
        sizes = np.array([*size_hw[::-1]] * 2, np.float64)
        within = np.clip(boxes, 0, sizes - 1)
        side = sizes if self.side is None else float(self.side)
        return np.floor(within * side / sizes)


def score_map_in_unit_range(score_map: np.ndarray, side: int | None = SIDE) -> np.ndarray:
    """Resize a score map (cubic) and min-max normalise it; a constant map becomes 0.

    Args:
        score_map: Finite values, shape (H, W).
        side: Size that it is resized to, in pixels; None for no resizing.

    Returns:
        In [0, 1], float64, shape (side, side).

    Raises:
        ValueError: If the map has another shape or is not finite.
    """
    if score_map.ndim != 2 or not score_map.size:
        raise ValueError(f"score_map: expected shape (H, W), found {score_map.shape}")
    if not np.isfinite(score_map).all():
        raise ValueError(
            "score_map: found NaN or infinite values; expected finite ones. Look for NaN in "
            "the classifier's weights or an overflow of half precision"
        )
    values: np.ndarray = score_map.astype(np.float64)
    if side is not None:
        values = cv2.resize(values, (side, side), interpolation=cv2.INTER_CUBIC)
    values -= values.min()
    highest = values.max()
    return values / highest if highest > 0 else values


def contour_boxes(image: np.ndarray, level: int) -> tuple[np.ndarray, int]:
    """Compute the boxes of the contours of the pixels above a level.

    Args:
        image: uint8, shape (H, W).
        level: From 0 to 255.

    Returns:
        Boxes (x1, y1, x2, y2), each clipped to the last pixel of the image, shape (N, 4), and the
        index of the one whose contour has the largest area. Without a contour there is one box,
        (0, 0, 0, 0).
    """
    foreground = (image > level).astype(np.uint8)
    contours = cv2.findContours(foreground, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not len(contours):
        return np.zeros((1, 4)), 0
    boxes = np.array([cv2.boundingRect(contour) for contour in contours], np.float64)
    boxes[:, 2:] += boxes[:, :2]
    last = np.array(image.shape[::-1]) - 1
    boxes[:, 2:] = np.minimum(boxes[:, 2:], last)
    return boxes, int(np.argmax([cv2.contourArea(contour) for contour in contours]))


def _boxes_by_level(image: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compute the boxes of the foregrounds at the levels 0 to 254, without repetition.

    Returns:
        The boxes of all distinct foregrounds ("cuts"), concatenated, shape (N, 4); the index of
        the first box and of the box with the largest contour per cut, both of shape (C,); the
        index of the cut per level, shape (255,).
    """
    differs = np.bincount(image.reshape(-1), minlength=TOP + 1)[:TOP] > 0
    differs[0] = True  # a level that no pixel has gives the same cut as the level below
    cuts = [contour_boxes(image, int(level)) for level in np.flatnonzero(differs)]
    counts = [len(boxes) for boxes, _ in cuts]
    starts = np.cumsum([0, *counts[:-1]])
    largest = starts + [index for _, index in cuts]
    return np.concatenate([boxes for boxes, _ in cuts]), starts, largest, np.cumsum(differs) - 1


def _by_iou(values: Sequence[float]) -> dict[str, float]:
    return {str(iou): value for iou, value in zip(LOCALIZATION_IOUS, values, strict=True)}


def _at_level(accuracy: np.ndarray, level: int) -> dict[str, Any]:
    shares = accuracy[:, level].tolist()
    return {
        "max_contour": shares[0],
        "all_contours": float(np.mean(shares[1:])),
        "all_contours_by_iou": _by_iou(shares[1:]),
    }
