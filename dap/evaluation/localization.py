"""Localisation, precision and recall of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .localization_counts import LOCALIZATION_IOUS, SIZES, ClassCounts, box_areas, overlaps

__all__ = ["LOCALIZATION_IOUS", "LocalizationQuality", "overlaps"]


class LocalizationQuality:
    """Localisation, precision and recall of boxes, per class and over all classes.

    A *case* is a pair of an image and a class of which the image has an object that counts. A box
    is correct at an IoU threshold if its IoU with any counted object of its class reaches the
    threshold. The *top box* of a case is the box of the class with the highest score or, without
    scores, the largest box. A case without a box of its class is wrong.

    - **GT-known localisation**: share of cases whose top box is correct at IoU .5. (The class is
      known: "GT-known Loc" of Singh and Lee, Hide-and-Seek, ICCV 2017, who use one box per image,
      from one threshold of the map.)
    - **CorLoc**: the same per class, then averaged over the classes (Deselaers, Alexe, Ferrari:
      Weakly Supervised Localization and Learning with Generic Knowledge, IJCV 2012: share of the
      images of a class in which the selected box localises an object by the Pascal criterion.
      That criterion requires an IoU above .5; here .5 suffices, as in MaxBoxAcc).
    - **Localisation per threshold**: share of cases for which the largest box of a threshold τ, or
      any box of it, is correct at IoU .3, .5, .7. ``best_threshold`` has the highest share over
      the τ of the run. It uses the ground truth to choose τ, as MaxBoxAcc and MaxBoxAccV2 do, but
      these choose among 1000 thresholds of the score map, see
      :class:`~dap.evaluation.max_box_accuracy.MaxBoxAccuracy`.
    - **Precision and recall** at IoU .5: boxes and objects of a class in an image are matched one
      to one as in COCO: boxes in order of descending score (without scores: descending area), each
      to the unmatched object with the highest IoU. Precision is the share of boxes with a match,
      recall the share of objects with a match, over all images and classes. A second box on the
      same object is therefore wrong. Per size, with COCO's limits of 32 x 32 and 96 x 96 px on the
      area of the box: recall by the size of the object, precision by the size of the box.
    - **Average recall**: recall averaged over matches at IoU .5, .55, …, .95 and over the classes
      (COCO's AR without a limit on the number of boxes).

    Ignored objects (crowds, VOC's difficult ones) count neither as detected nor as missed. A box
    without a match that lies on an ignored object does not count for precision; as in COCO's rule
    for crowds, it lies on the object if the intersection is at least half of the box.

    Images without any object are not counted, nor are their boxes.

    Args:
        thresholds: Values of τ of the run; boxes refer to them by index.
        class_agnostic: Whether to treat all boxes and objects as one class, 0, as is needed if the
            ground truth has no classes.
    """

    def __init__(self, thresholds: Sequence[float] = (), class_agnostic: bool = False) -> None:
        self.thresholds = list(thresholds)
        self.class_agnostic = class_agnostic
        self.images = self.images_without_truth = self.ignored = 0
        self._classes: dict[int, ClassCounts] = {}

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
        """Add an image.

        Args:
            boxes: xyxy, half-open, in pixels, shape (N, 4).
            labels: Classes of the boxes, shape (N,).
            truth_boxes: Ground truth boxes, in the same convention, with an area, shape (M, 4).
            truth_labels: Classes of the ground truth, shape (M,).
            scores: Scores of the boxes, higher is better, shape (N,).
            thresholds: Index of the threshold per box, shape (N,). An index out of range, such as
                255, means none.
            truth_ignored: Whether each object is ignored, bool, shape (M,). Defaults to none.
            image: Number of the image in the lists of the worst classes. Defaults to the number of
                images added before.
            overlap: IoU of each box with each object, such as the IoU of their masks
                (:func:`dap.evaluation.masks.mask_overlaps`), shape (N, M). Defaults to the IoU of
                the boxes.

        Raises:
            ValueError: If shapes do not fit, or a box is not finite or ends before it starts.
        """
        index = self.images + self.images_without_truth if image is None else image
        boxes, truth = _checked("boxes", boxes), _checked("truth_boxes", truth_boxes)
        ignored = np.zeros(len(truth), bool) if truth_ignored is None else truth_ignored
        taus = np.full(len(boxes), -1) if thresholds is None else np.asarray(thresholds)
        areas = box_areas(boxes)
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
        if not box_areas(truth).all():
            raise ValueError("truth_boxes: found one without area. Leave it out")
        if not len(truth):
            self.images_without_truth += 1
            return
        self.images += 1
        self.ignored += int(np.count_nonzero(ignored))
        labels, truth_labels = (
            np.zeros(len(values), int) if self.class_agnostic else np.asarray(values)
            for values in (labels, truth_labels)
        )
        order = np.argsort(-ranks, kind="stable")
        for label in {*labels.tolist(), *truth_labels.tolist()}:
            rows, columns = order[labels[order] == label], truth_labels == label
            counts = self._classes.setdefault(label, ClassCounts(len(self.thresholds)))
            selected = overlap[rows][:, columns]
            counts.add(boxes[rows], taus[rows], truth[columns], ignored[columns], selected, index)

    def summary(self, worst: int = 10) -> dict[str, Any]:
        """Compute the figures.

        Args:
            worst: Number of classes with the lowest CorLoc to list; ties are broken by lower
                recall.

        Returns:
            Shares in [0, 1], None if undefined:

            - ``images`` with objects and ``images_without_truth``; ``cases``, ``objects``,
              ``objects_ignored``, ``boxes`` (without those on ignored objects).
            - ``gt_known_localization``, ``corloc``, ``precision``, ``recall``,
              ``average_recall``.
            - ``by_size``: per name of :data:`SIZES` ``objects``, ``boxes``, ``precision``,
              ``recall``.
            - ``per_threshold``: per τ ``largest_box`` and ``any_box``, each per IoU, and
              ``best_threshold``: ``largest_box`` (at IoU .5: ``accuracy`` and its ``threshold``),
              ``any_box_by_iou`` and their mean ``any_box``. Without thresholds both are empty.
            - ``per_class``: the same per label, in order, with ``corloc`` and without
              ``best_threshold``. Labels with boxes but without objects are included.
            - ``worst_classes``: per class ``label``, ``corloc``, ``missed_images`` (numbers of the
              images whose top box is wrong or absent) and ``found_images``.
        """
        total = ClassCounts(len(self.thresholds))
        for counts in self._classes.values():
            total.merge(counts)
        per_class = {
            label: self._figures(counts) for label, counts in sorted(self._classes.items())
        }
        overall = self._figures(total)
        overall["gt_known_localization"] = overall.pop("corloc")
        for name in ("corloc", "average_recall"):
            known = [figures[name] for figures in per_class.values() if figures[name] is not None]
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

    def _figures(self, counts: ClassCounts) -> dict[str, Any]:
        """Figures of one class, or of all classes together."""
        return {
            "cases": counts.cases,
            "objects": int(counts.objects.sum()),
            "boxes": int(counts.boxes.sum()),
            "corloc": _share(len(counts.found_images), counts.cases),
            "precision": _share(float(counts.correct.sum()), float(counts.boxes.sum())),
            "recall": _share(float(counts.matched_objects.sum()), float(counts.objects.sum())),
            "average_recall": _share(float(counts.recalled.mean()), float(counts.objects.sum())),
            "by_size": {
                name: {
                    "objects": int(counts.objects[size]),
                    "boxes": int(counts.boxes[size]),
                    "precision": _share(counts.correct[size], counts.boxes[size]),
                    "recall": _share(counts.matched_objects[size], counts.objects[size]),
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
        """The highest shares over the run's thresholds; empty without thresholds or cases."""
        if not (self.thresholds and any(counts.cases for counts in self._classes.values())):
            return {}

        def best(kind: str, iou: str) -> dict[str, float]:
            shares = [figures[kind][iou] for figures in per_threshold.values()]
            first = int(np.argmax(shares))
            return {"accuracy": shares[first], "threshold": self.thresholds[first]}

        by_iou = {str(iou): best("any_box", str(iou)) for iou in LOCALIZATION_IOUS}
        return {
            "largest_box": best("largest_box", "0.5"),
            "any_box": float(np.mean([row["accuracy"] for row in by_iou.values()])),
            "any_box_by_iou": by_iou,
        }

    def _worst(self, per_class: dict[int, dict[str, Any]], worst: int) -> list[dict[str, Any]]:
        known = [label for label, figures in per_class.items() if figures["cases"]]
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


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _by_iou(counts: np.ndarray, cases: int) -> dict[str, float | None]:
    shares = (_share(count, cases) for count in counts)
    return dict(zip(map(str, LOCALIZATION_IOUS), shares, strict=True))
