"""How well boxes find the objects of images whose ground truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

LOCALIZATION_IOUS = (0.3, 0.5, 0.7)  # those of MaxBoxAccV2
RECALL_IOUS = np.linspace(0.5, 0.95, 10).tolist()  # those of COCO's average recall
SIZES = ("small", "medium", "large")
_SIZE_LIMITS = (32.0**2, 96.0**2)  # square pixels
_NONE, _ON_IGNORED = -1, -2


class LocalizationQuality:
    """Localisation, precision and recall of boxes, over all classes and for each.

    A *case* is an image and a class of which it has an object that counts. A box is right at an
    IoU if it has that IoU or a higher one, with any object of its class in its image that counts.
    The *one box* of a case is that of the class with the highest score or, without scores, the
    largest. A case without a box of its class is wrong.

    - **GT-known localisation**: share of cases whose one box is right at IoU .5. (The class is
      given: "GT-known Loc" of Singh and Lee, Hide-and-Seek, ICCV 2017. They have one box an image,
      from one threshold of the map.)
    - **CorLoc**: the same per class, then the mean over the classes (Deselaers, Alexe, Ferrari:
      Weakly Supervised Localization and Learning with Generic Knowledge, IJCV 2012; the share of
      a class's images in which an object is localised by the box that is chosen for it, by the
      Pascal criterion. That criterion is "above .5", here .5 itself is right, as in MaxBoxAcc).
    - **Localisation per threshold**: share of cases for which the largest box that was found at a
      threshold τ, or any such box, is right at IoU .3, .5, .7. The largest of these shares over
      the run's few τ stands in ``best_threshold``. It knows the ground truth as MaxBoxAcc and
      MaxBoxAccV2 do, but is not them: those take the best of 1000 thresholds of the score map, see
      :class:`~dap.evaluation.max_box_accuracy.MaxBoxAccuracy`.
    - **Precision and recall** at IoU .5: boxes and objects of a class in an image are matched one
      to one as COCO does it: boxes by falling score (without scores: by falling area), each to the
      free object with which it has the highest IoU. Precision is the share of boxes that have an
      object, recall the share of objects that have a box, over all images and classes. So a
      second box on one object is wrong. Per size, in COCO's limits of 32 x 32 and 96 x 96 px on
      the area of the box: recall by the object's size, precision by the box's.
    - **Average recall**: recall with matches at IoU .5, .55, …, .95, mean over these and over the
      classes (COCO's AR, with no limit on the number of boxes).

    Objects to be ignored (crowds, VOC's difficult ones) are neither found nor missed. A box that
    has no object of its own and lies on an ignored one is neither right nor wrong in precision;
    "lies on" is COCO's rule for crowds, that the intersection is at least half of the box.

    Images without any object are not counted, nor are their boxes.

    Args:
        thresholds: Values of τ of the run, in the order of the indices that the boxes give.
        class_agnostic: Whether all boxes and objects are of one class, 0, as where the ground
            truth has no classes.
    """

    def __init__(self, thresholds: Sequence[float] = (), class_agnostic: bool = False) -> None:
        self.thresholds = list(thresholds)
        self.class_agnostic = class_agnostic
        self.images = self.images_without_truth = self.ignored = 0
        self._classes: dict[int, _Counts] = {}

    def add(
        self,
        boxes: np.ndarray,
        labels: np.ndarray,
        truth_boxes: np.ndarray,
        truth_labels: np.ndarray,
        *,
        scores: np.ndarray | None = None,
        thresholds: np.ndarray | None = None,
        truth_ignored: np.ndarray | None = None,
        image: int | None = None,
        overlap: np.ndarray | None = None,
    ) -> None:
        """Count an image.

        Args:
            boxes: xyxy, half-open, in pixels, shape (N, 4).
            labels: Their classes, shape (N,).
            truth_boxes: Ground truth, likewise, with an area, shape (M, 4).
            truth_labels: Its classes, shape (M,).
            scores: Of the boxes, higher is better, shape (N,).
            thresholds: Index of the threshold that each box was found at; one that is out of
                range, such as 255, is none. Shape (N,).
            truth_ignored: Which objects are to be ignored, bool, shape (M,). Defaults to none.
            image: Number of the image in the lists of the worst classes. Defaults to how many were
                added before.
            overlap: IoU of each box with each object to go by, such as that of their masks
                (:func:`dap.evaluation.masks.mask_overlaps`), shape (N, M). Defaults to that of the
                boxes.

        Raises:
            ValueError: If shapes do not fit, or a box is not finite or ends before it starts.
        """
        index = self.images + self.images_without_truth if image is None else image
        boxes, truth = _checked("boxes", boxes), _checked("truth_boxes", truth_boxes)
        ignored = np.zeros(len(truth), bool) if truth_ignored is None else truth_ignored
        taus = np.full(len(boxes), -1) if thresholds is None else np.asarray(thresholds)
        areas = _areas(boxes)
        ranks = areas if scores is None else np.asarray(scores)
        for name, values, expected in (
            ("labels", labels, len(boxes)),
            ("scores", ranks, len(boxes)),
            ("thresholds", taus, len(boxes)),
            ("truth_labels", truth_labels, len(truth)),
            ("truth_ignored", ignored, len(truth)),
        ):
            if np.shape(values) != (expected,):
                raise ValueError(f"{name}: expected {expected} values, found {np.shape(values)}")
        overlap = overlaps(boxes, truth, np.asarray(ignored)) if overlap is None else overlap
        if overlap.shape != (len(boxes), len(truth)):
            raise ValueError(
                f"overlap: expected shape {(len(boxes), len(truth))}, found {overlap.shape}"
            )
        if not _areas(truth).all():
            raise ValueError("truth_boxes: found one without area. Leave it out")
        if not len(truth):
            self.images_without_truth += 1
            return
        self.images += 1
        self.ignored += int(np.count_nonzero(ignored))
        labels, truth_labels = (
            np.zeros(len(own), int) if self.class_agnostic else np.asarray(own)
            for own in (labels, truth_labels)
        )
        order = np.argsort(-ranks, kind="stable")
        for label in {*labels.tolist(), *truth_labels.tolist()}:
            own, of_class = order[labels[order] == label], truth_labels == label
            counts = self._classes.setdefault(label, _Counts(len(self.thresholds)))
            own_overlap = overlap[own][:, of_class]
            counts.add(
                boxes[own], taus[own], truth[of_class], ignored[of_class], own_overlap, index
            )

    def summary(self, worst: int = 10) -> dict[str, Any]:
        """Compute the figures.

        Args:
            worst: How many of the classes with the lowest CorLoc to list; of equal ones, that with
                the lower recall.

        Returns:
            Shares in [0, 1], None where there is nothing to take a share of:

            - ``images`` with objects and ``images_without_truth``; ``cases``, ``objects``,
              ``objects_ignored``, ``boxes`` (without those on ignored objects).
            - ``gt_known_localization``, ``corloc``, ``precision``, ``recall``,
              ``average_recall``.
            - ``by_size``: per name of :data:`SIZES` ``objects``, ``boxes``, ``precision``,
              ``recall``.
            - ``per_threshold``: per τ ``largest_box`` and ``any_box``, each per IoU, and
              ``best_threshold``: ``largest_box`` (at IoU .5: ``accuracy`` and its ``threshold``),
              ``any_box_by_iou`` and their mean ``any_box``. Without thresholds both are empty.
            - ``per_class``: the same per label, in order, with ``corloc`` and no
              ``best_threshold``. Labels that have boxes and no object are among them.
            - ``worst_classes``: of each ``label``, ``corloc``, ``missed_images`` (numbers of the
              images where the one box is wrong or absent) and ``found_images``.
        """
        total = _Counts(len(self.thresholds))
        for counts in self._classes.values():
            total.merge(counts)
        per_class = {label: self._figures(own) for label, own in sorted(self._classes.items())}
        overall = self._figures(total)
        overall["gt_known_localization"] = overall.pop("corloc")
        for name in ("corloc", "average_recall"):
            known = [own[name] for own in per_class.values() if own[name] is not None]
            overall[name] = float(np.mean(known)) if known else None
        return {
            "images": self.images,
            "images_without_truth": self.images_without_truth,
            "objects_ignored": self.ignored,
            **overall,
            "best_threshold": self._best_threshold(overall["per_threshold"]),
            "per_class": per_class,
            "worst_classes": self._worst(per_class, worst),
        }

    def _figures(self, counts: _Counts) -> dict[str, Any]:
        """The figures of one class, or of all together."""
        return {
            "cases": counts.cases,
            "objects": int(counts.objects.sum()),
            "boxes": int(counts.boxes.sum()),
            "corloc": _share(len(counts.found_images), counts.cases),
            "precision": _share(float(counts.right.sum()), float(counts.boxes.sum())),
            "recall": _share(float(counts.found.sum()), float(counts.objects.sum())),
            "average_recall": _share(float(counts.recalled.mean()), float(counts.objects.sum())),
            "by_size": {
                name: {
                    "objects": int(counts.objects[size]),
                    "boxes": int(counts.boxes[size]),
                    "precision": _share(counts.right[size], counts.boxes[size]),
                    "recall": _share(counts.found[size], counts.objects[size]),
                }
                for size, name in enumerate(SIZES)
            },
            "per_threshold": {
                str(tau): {
                    "largest_box": _by_iou(counts.largest[i], counts.cases),
                    "any_box": _by_iou(counts.any[i], counts.cases),
                }
                for i, tau in enumerate(self.thresholds)
            },
        }

    def _best_threshold(self, per_threshold: dict[str, Any]) -> dict[str, Any]:
        """The largest shares over the run's thresholds, where there are any."""
        if not (self.thresholds and any(own.cases for own in self._classes.values())):
            return {}

        def best(kind: str, iou: str) -> dict[str, float]:
            shares = [own[kind][iou] for own in per_threshold.values()]
            first = int(np.argmax(shares))
            return {"accuracy": shares[first], "threshold": self.thresholds[first]}

        by_iou = {str(iou): best("any_box", str(iou)) for iou in LOCALIZATION_IOUS}
        return {
            "largest_box": best("largest_box", "0.5"),
            "any_box": float(np.mean([own["accuracy"] for own in by_iou.values()])),
            "any_box_by_iou": by_iou,
        }

    def _worst(self, per_class: dict[int, dict[str, Any]], worst: int) -> list[dict[str, Any]]:
        known = [label for label, own in per_class.items() if own["cases"]]
        known.sort(key=lambda label: (per_class[label]["corloc"], per_class[label]["recall"]))
        return [
            {
                "label": label,
                "corloc": per_class[label]["corloc"],
                "missed_images": self._classes[label].missed_images,
                "found_images": self._classes[label].found_images,
            }
            for label in known[:worst]
        ]


def overlaps(
    boxes: np.ndarray, truth_boxes: np.ndarray, crowd: np.ndarray | None = None
) -> np.ndarray:
    """IoU of each box with each of the ground truth; COCO's own.

    Args:
        boxes: xyxy, half-open, shape (N, 4).
        truth_boxes: Likewise, shape (M, 4).
        crowd: Whose overlap is the share of the box that lies within, bool, shape (M,).

    Returns:
        In [0, 1], 0 for a box without area, float64, shape (N, M).
    """
    if not (len(boxes) and len(truth_boxes)):
        return np.zeros((len(boxes), len(truth_boxes)))
    sides = [np.array(own, np.float64) for own in (boxes, truth_boxes)]
    for own in sides:
        own[:, 2:] -= own[:, :2]
    crowd = np.zeros(len(truth_boxes)) if crowd is None else crowd
    return np.nan_to_num(coco_mask.iou(*sides, crowd.astype(np.uint8)))


def match(overlap: Sequence[Sequence[float]], ignored: Sequence[bool], iou: float) -> list[int]:
    """Match boxes to objects one to one, greedily, as COCO does.

    Args:
        overlap: Of each box, the best first, with each object, shape (N, M).
        ignored: Which objects are to be ignored, M long. They may be matched to several boxes, and
            only where no other object is left.
        iou: The least overlap of a match.

    Returns:
        Of each box the index of its object, -1 if it has none, -2 if it lies on an ignored one.
    """
    free = [not skipped for skipped in ignored]
    matched = []
    for row in overlap:
        choice, best = _NONE, iou
        for index, value in enumerate(row):
            if free[index] and value >= best:
                choice, best = index, value
        if choice != _NONE:
            free[choice] = False
        elif any(skipped and v >= iou for skipped, v in zip(ignored, row, strict=True)):
            choice = _ON_IGNORED
        matched.append(choice)
    return matched


@dataclass
class _Counts:
    """Running counts of a class; arrays by size (3), IoU of recall (10), τ and IoU (T, 3)."""

    taus: int
    found_images: list[int] = field(default_factory=list)
    missed_images: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.objects, self.found, self.boxes, self.right = np.zeros((4, len(SIZES)), np.int64)
        self.recalled = np.zeros(len(RECALL_IOUS), np.int64)
        self.largest, self.any = np.zeros((2, self.taus, len(LOCALIZATION_IOUS)), np.int64)

    @property
    def cases(self) -> int:
        """Images with an object that counts."""
        return len(self.found_images) + len(self.missed_images)

    def merge(self, other: _Counts) -> None:
        """Add the counts of another class."""
        self.found_images += other.found_images
        self.missed_images += other.missed_images
        for name in ("objects", "found", "boxes", "right", "recalled", "largest", "any"):
            own = getattr(self, name)
            own += getattr(other, name)

    def add(
        self,
        boxes: np.ndarray,
        taus: np.ndarray,
        truth: np.ndarray,
        ignored: np.ndarray,
        overlap: np.ndarray,
        image: int,
    ) -> None:
        """Count the boxes, the best first, and the objects of this class in an image."""
        self._count_matches(boxes, truth, overlap, ignored)
        if ignored.all():
            return
        best = overlap[:, ~ignored].max(axis=1)
        right = len(best) > 0 and best[0] >= 0.5
        (self.found_images if right else self.missed_images).append(image)
        areas = _areas(boxes)
        for i in range(self.taus):
            own = np.flatnonzero(taus == i)
            if len(own):
                largest = best[own[areas[own].argmax()]]
                self.largest[i] += largest >= np.array(LOCALIZATION_IOUS)
                self.any[i] += best[own].max() >= np.array(LOCALIZATION_IOUS)

    def _count_matches(
        self, boxes: np.ndarray, truth: np.ndarray, overlap: np.ndarray, ignored: np.ndarray
    ) -> None:
        rows, skipped = overlap.tolist(), ignored.tolist()
        matched = np.array(match(rows, skipped, 0.5), int)
        sizes, truth_sizes = _sizes(boxes), _sizes(truth)
        self.boxes += _per_size(sizes[matched != _ON_IGNORED])
        self.right += _per_size(sizes[matched >= 0])
        self.objects += _per_size(truth_sizes[~ignored])
        self.found += _per_size(truth_sizes[matched[matched >= 0]])
        for i, iou in enumerate(RECALL_IOUS):
            self.recalled[i] += sum(index >= 0 for index in match(rows, skipped, iou))


def _checked(name: str, boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name}: expected shape (N, 4), found {boxes.shape}")
    bad = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= boxes[:, :2]).all(axis=1))
    if bad.any():
        raise ValueError(
            f"{name}: expected finite x1 <= x2 and y1 <= y2, found {boxes[bad][0].tolist()}. Boxes "
            "are corners (x1, y1, x2, y2), not x, y, width, height"
        )
    return boxes


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


def _sizes(boxes: np.ndarray) -> np.ndarray:
    """Index in :data:`SIZES` of each box."""
    return np.searchsorted(_SIZE_LIMITS, _areas(boxes), side="right")


def _per_size(sizes: np.ndarray) -> np.ndarray:
    return np.bincount(sizes, minlength=len(SIZES))


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _by_iou(counts: np.ndarray, cases: int) -> dict[str, float | None]:
    shares = (_share(count, cases) for count in counts)
    return dict(zip(map(str, LOCALIZATION_IOUS), shares, strict=True))
