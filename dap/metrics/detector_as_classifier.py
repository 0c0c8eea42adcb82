"""Accuracy of a detector that is used as a classifier (DAP, section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from dap.registry import METRICS


@METRICS.register_module()
class DetectorAsClassifier(BaseMetric):
    """Top-k accuracy of a detector that is used as a classifier.

    "The class score is taken as the sum of the confidence scores of all detected objects of this
    class" (DAP, section 4.3). A class without a detection has no score and is never predicted; an
    image without detections is wrong for every k. A tie with a wrong class counts as wrong, so
    that results do not depend on the order of the classes. If an image has several labels, any of
    them is correct.

    The detector's ``test_cfg`` determines which objects are detected (``score_thr``, NMS,
    ``max_per_img``). Data set and detector must have the same labels; names are not compared.

    The results are ``top1``, ``top5`` …, in percent, and the number of
    ``images_without_detection``.

    Args:
        topk: Values of k. With k above the number of classes, any detection of the correct class
            counts.
        **kwargs: Arguments of :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: If ``topk`` is empty or below 1.
    """

    default_prefix = "classification"

    def __init__(self, topk: Sequence[int] = (1, 5), **kwargs: Any) -> None:
        if not topk or min(topk) < 1:
            raise ValueError(f"DetectorAsClassifier: topk is {topk}; expected numbers of 1 or more")
        super().__init__(**kwargs)
        self.topk = tuple(topk)

    def process(self, data_batch: object, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Rank the true class of each image.

        Args:
            data_batch: Not used.
            data_samples: Samples with ``gt_label`` (one or several) and ``pred_instances``, which
                has ``scores`` and ``labels``, both of shape (N,).

        Raises:
            ValueError: If a sample has no label or no predictions, a label is out of range, or a
                score is not finite.
        """
        classes = (self.dataset_meta or {}).get("classes")
        for sample in data_samples:
            truth, scores, labels = _read(sample, len(classes) if classes else None)
            rank = rank_of_truth(scores, labels, truth)
            self.results.append({"rank": rank, "detections": len(labels)})

    def compute_metrics(self, results: list[dict[str, int | None]]) -> dict[str, float]:
        """Compute the accuracies.

        Args:
            results: Per image the ``rank`` of its true class and the number of ``detections``.

        Returns:
            Percentage of images per k, and the number of images without a detection.

        Raises:
            ValueError: If there are no results.
        """
        if not results:
            raise ValueError("DetectorAsClassifier: no image has been processed")
        ranks = [result["rank"] for result in results]
        metrics: dict[str, float] = {
            f"top{k}": 100 * sum(r is not None and r <= k for r in ranks) / len(ranks)
            for k in self.topk
        }
        metrics["images_without_detection"] = sum(not r["detections"] for r in results)
        return metrics


def rank_of_truth(scores: np.ndarray, labels: np.ndarray, truth: Sequence[int]) -> int | None:
    """Rank the true class of an image by the sums of its detections' scores.

    Args:
        scores: Finite scores of the detections, shape (N,).
        labels: Their classes, from 0, shape (N,).
        truth: The correct classes.

    Returns:
        1 + the number of wrong classes whose sum is at least that of the best correct class; None
        if there is no detection of a correct class.
    """
    detected, class_of = np.unique(labels, return_inverse=True)
    sums = np.bincount(class_of, weights=scores, minlength=len(detected))
    correct = np.isin(detected, truth)
    if not correct.any():
        return None
    return 1 + int((sums[~correct] >= sums[correct].max()).sum())


def _read(
    sample: Mapping[str, Any], num_classes: int | None
) -> tuple[list[int], np.ndarray, np.ndarray]:
    image = sample.get("img_path", "an image")
    if sample.get("gt_label") is None:
        raise ValueError(
            f"DetectorAsClassifier: {image} has no gt_label. Add it to the meta_keys of "
            "PackDetInputs in the test pipeline, and use a data set that has labels"
        )
    if "pred_instances" not in sample:
        raise ValueError(
            f"DetectorAsClassifier: {image} has no pred_instances. The model must be a detector"
        )
    truth = np.atleast_1d(np.asarray(sample["gt_label"])).tolist()
    scores = sample["pred_instances"]["scores"].cpu().double().numpy()
    labels = sample["pred_instances"]["labels"].cpu().numpy()
    if not truth:
        raise ValueError(f"DetectorAsClassifier: the gt_label of {image} is empty")
    if not np.isfinite(scores).all():
        raise ValueError(f"DetectorAsClassifier: {image} has scores that are not finite")
    for name, values in (("gt_label", truth), ("predicted label", labels.tolist())):
        for value in values:
            if value < 0 or (num_classes is not None and value >= num_classes):
                raise ValueError(
                    f"DetectorAsClassifier: {image} has the {name} {value}; the data set has "
                    f"{num_classes if num_classes is not None else 'unnamed'} classes, numbered "
                    "from 0. Detector and data set must have the same classes in the same order"
                )
    return truth, scores, labels
