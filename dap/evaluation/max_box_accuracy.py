"""MaxBoxAcc and MaxBoxAccV2 of score maps, as published for weakly supervised localisation.

J. Choe, S. J. Oh, S. Lee, S. Chun, Z. Akata, H. Shim: Evaluating Weakly Supervised Object
Localization Methods Right, CVPR 2020. Where the paper leaves freedom, the code that its authors
published (github.com/clovaai/wsolevaluation) says how the figures of the literature are made, and
this module does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from .localization import LOCALIZATION_IOUS, overlaps

SIDE = 224  # pixels: the maps and boxes of the published figures
TOP = 255  # the largest value of a map
THRESHOLDS = np.arange(0, 1, 0.001)  # of which the best is taken
_LEVELS = (THRESHOLDS * TOP).astype(int)


class MaxBoxAccuracy:
    """Accuracy of the boxes of thresholded score maps, at the best threshold and at fixed ones.

    1. A map is resized to 224 x 224 (cubic), min-max normalised and turned into whole numbers from
       0 to 255 (rounded down). A constant map becomes 0.
    2. It is cut at a threshold t: what is above ``int(255 * t)`` is foreground.
    3. Each contour of the foreground has a box: the outlines of its components (8 neighbours), and
       of their holes too.
    4. A box is right from an IoU with any ground truth box on. Both are taken with their last
       pixel, their width being x2 - x1 + 1; so are they in the published code, whose boxes of
       contours end one pixel behind the contour unless the map ends there.

    **MaxBoxAcc** is the share of maps for which the box of the contour with the largest area is
    right at IoU .5, for the t of 0, .001, …, .999 at which that share is largest. **MaxBoxAccV2**
    takes a map for right if the box of any contour is, and is the mean over IoU .3, .5, .7 of the
    largest shares, each at its own t. Both know the ground truth when they choose t: the shares at
    fixed thresholds do without that oracle.

    Args:
        side: Size that maps are resized to, in pixels; None leaves them as they are.
    """

    def __init__(self, side: int | None = SIDE) -> None:
        self.side = side
        self._images: dict[int, int] = {}
        self._right: dict[int, np.ndarray] = {}

    def add(self, score_map: np.ndarray, truth_boxes: np.ndarray, label: int = 0) -> None:
        """Count the map of an image for one of its classes.

        Args:
            score_map: Any finite values, at the size of the image or smaller, shape (H, W).
            truth_boxes: Ground truth of this class, xyxy, in pixels of the map, shape (M, 4),
                M > 0. Like ImageNet's in the published code, their corners are taken as they
                stand, but not beyond the last pixel, and rounded down after the resizing.
            label: The class.

        Raises:
            ValueError: If the map is not of that shape, is not finite, or there is no box.
        """
        image = self._image(score_map)
        truth = self._truth(truth_boxes, score_map.shape)
        boxes, starts, largest, cut_of_level = _boxes_by_level(image)
        best = overlaps(_ends_included(boxes), _ends_included(truth)).max(axis=1)
        best_of_any = np.maximum.reduceat(best, starts)
        right = [best[largest] >= 0.5, *(best_of_any >= iou for iou in LOCALIZATION_IOUS)]
        so_far = self._right.get(label, np.zeros((), np.int32))
        self._right[label] = so_far + np.array(right)[:, cut_of_level]
        self._images[label] = self._images.get(label, 0) + 1

    @property
    def maps(self) -> int:
        """Number of maps that were added."""
        return sum(self._images.values())

    def summary(self, thresholds: Sequence[float] = ()) -> dict[str, Any]:
        """Compute the figures of all maps, and of those of each class.

        Args:
            thresholds: Fixed thresholds in [0, 1), such as the run's own, for the accuracy without
                the oracle.

        Returns:
            All in [0, 1]: ``max_box_acc``; ``max_box_acc_v2`` and its parts
            ``max_box_acc_v2_by_iou``; the ``thresholds`` that gave them (the lowest of those that
            do); ``at_fixed_thresholds``: per threshold ``max_contour`` (IoU .5) and
            ``all_contours``, mean over the IoUs; and the number of ``images``. ``per_class`` has
            the same per label, with the thresholds that are best for all classes together, as
            there is one threshold for a data set in the publication.

        Raises:
            ValueError: If there is no map, or a threshold is out of range.
        """
        if not self._images:
            raise ValueError("MaxBoxAccuracy: no map has been added")
        outside = [tau for tau in thresholds if not 0 <= tau < 1]
        if outside:
            raise ValueError(f"thresholds: expected values in [0, 1), found {outside}")
        total = np.sum(list(self._right.values()), axis=0)
        chosen = total[:, _LEVELS].argmax(axis=1)

        def figures(right: np.ndarray, images: int) -> dict[str, Any]:
            accuracy = right / images
            best = accuracy[np.arange(len(right)), _LEVELS[chosen]].tolist()
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
                label: figures(right, self._images[label])
                for label, right in sorted(self._right.items())
            },
        }

    def _image(self, score_map: np.ndarray) -> np.ndarray:
        """The map in whole numbers from 0 to 255."""
        return (score_map_in_unit_range(score_map, self.side) * TOP).astype(np.uint8)

    def _truth(self, boxes: np.ndarray, size_hw: tuple[int, ...]) -> np.ndarray:
        """Ground truth in whole pixels of the resized map."""
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
    """Resize a score map (cubic) and min-max normalise it; a constant one becomes 0.

    Args:
        score_map: Any finite values, shape (H, W).
        side: Size that it is resized to, in pixels; None leaves it as it is.

    Returns:
        In [0, 1], float64, shape (side, side).

    Raises:
        ValueError: If the map is not of that shape, or not finite.
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
    """Box the contours of what is above a level.

    Args:
        image: uint8, shape (H, W).
        level: From 0 to 255.

    Returns:
        Boxes (x1, y1, x2, y2), each limited to the last pixel of the image, shape (N, 4), and the
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
    """Boxes of the cuts at the levels 0 to 254.

    Returns:
        The boxes of all different cuts, one behind the other, shape (N, 4); where those of each
        cut start, and which of its boxes has the largest contour, both of shape (C,); the cut of
        each level, shape (255,).
    """
    differs = np.bincount(image.reshape(-1), minlength=TOP + 1)[:TOP] > 0
    differs[0] = True  # where no pixel has a level, the cut is that of the level before
    cuts = [contour_boxes(image, int(level)) for level in np.flatnonzero(differs)]
    counts = [len(boxes) for boxes, _ in cuts]
    starts = np.cumsum([0, *counts[:-1]])
    largest = starts + [index for _, index in cuts]
    return np.concatenate([boxes for boxes, _ in cuts]), starts, largest, np.cumsum(differs) - 1


def _ends_included(boxes: np.ndarray) -> np.ndarray:
    """The half-open boxes that hold the last pixel of others too."""
    return boxes + np.array([0.0, 0.0, 1.0, 1.0])


def _by_iou(values: Sequence[float]) -> dict[str, float]:
    return {str(iou): value for iou, value in zip(LOCALIZATION_IOUS, values, strict=True)}


def _at_level(accuracy: np.ndarray, level: int) -> dict[str, Any]:
    own = accuracy[:, level].tolist()
    return {
        "max_contour": own[0],
        "all_contours": float(np.mean(own[1:])),
        "all_contours_by_iou": _by_iou(own[1:]),
    }
