"""Localisation metrics of a detector, the same that pseudo boxes are evaluated by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from dap.evaluation.localization import LocalizationQuality
from dap.registry import METRICS


@METRICS.register_module()
class BoxLocalization(BaseMetric):
    """Localisation, precision and recall of a detector's boxes at IoU .5.

    ::

        val_evaluator = [dict(type='CocoMetric', ...), dict(type='dap.BoxLocalization')]

    :class:`~dap.evaluation.localization.LocalizationQuality` defines the metrics. The results are
    in [0, 1], -1 if undefined: ``gt_known_localization``, ``corloc``, ``precision``, ``recall``,
    ``average_recall``, and ``precision_…`` and ``recall_…`` for ``small``, ``medium`` and
    ``large``; and ``images_without_truth``, the number of images that are not counted.

    Ground truth is read from the samples, in pixels of the original image like the predictions:
    from ``instances`` if the ``meta_keys`` of ``PackDetInputs`` include it, else from
    ``gt_instances`` and ``ignored_instances``. The latter require ``LoadAnnotations`` after
    ``Resize`` in the test pipeline, as in mmdet's own configs; otherwise boxes are resized with
    the image.

    Args:
        score_thr: Boxes with a lower score are left out, which affects precision.
        class_agnostic: Whether classes are disregarded.
        **kwargs: Arguments of :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: If ``score_thr`` is not in [0, 1].
    """

    default_prefix = "localization"

    def __init__(self, score_thr: float = 0.0, class_agnostic: bool = False, **kwargs: Any) -> None:
        if not 0 <= score_thr <= 1:
            raise ValueError(f"BoxLocalization: score_thr is {score_thr}; expected one in [0, 1]")
        super().__init__(**kwargs)
        self.score_thr, self.class_agnostic = score_thr, class_agnostic

    def process(self, data_batch: object, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Store boxes and ground truth per image.

        Args:
            data_batch: Not used.
            data_samples: Samples with ``pred_instances``, which has ``bboxes`` (N, 4), ``scores``
                (N,) and ``labels`` (N,), and with ground truth.

        Raises:
            ValueError: If a sample has no predictions or no ground truth, or if ground truth
                exceeds the image.
        """
        for sample in data_samples:
            if "pred_instances" not in sample:
                raise ValueError(
                    f"BoxLocalization: {_name(sample)} has no pred_instances. The model must be a "
                    "detector"
                )
            boxes, labels, scores = _arrays(sample["pred_instances"], "bboxes", "labels", "scores")
            kept = scores >= self.score_thr
            self.results.append(
                {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept]}
                | _truth_of(sample)
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Compute the metrics.

        Args:
            results: Arguments of :meth:`LocalizationQuality.add` per image.

        Returns:
            The metrics listed in the class.

        Raises:
            ValueError: If there are no results.
        """
        if not results:
            raise ValueError("BoxLocalization: no image has been processed")
        quality = LocalizationQuality(class_agnostic=self.class_agnostic)
        for result in results:
            quality.add(**result)
        summary = quality.summary(worst=0)
        names = ("gt_known_localization", "corloc", "precision", "recall", "average_recall")
        figures = {name: summary[name] for name in names}
        for size, by_size in summary["by_size"].items():
            figures |= {f"{name}_{size}": by_size[name] for name in ("precision", "recall")}
        metrics = {name: -1.0 if value is None else value for name, value in figures.items()}
        return metrics | {"images_without_truth": summary["images_without_truth"]}


def _truth_of(sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Boxes, labels and ignored flags of a sample, in pixels of the original image."""
    if sample.get("instances") is not None:
        objects = [(*o["bbox"], o["bbox_label"], o["ignore_flag"]) for o in sample["instances"]]
        rows = np.array(objects, np.float64).reshape(-1, 6)
        boxes, labels, ignored = rows[:, :4], rows[:, 4].astype(int), rows[:, 5].astype(bool)
    elif "bboxes" in sample.get("gt_instances", ()):
        parts = [sample["gt_instances"], sample.get("ignored_instances", {})]
        arrays = [_arrays(part, "bboxes", "labels") for part in parts if "bboxes" in part]
        boxes, labels = (np.concatenate(column) for column in zip(*arrays, strict=True))
        ignored = np.arange(len(boxes)) >= len(arrays[0][0])
        _check_frame(sample, boxes)
    else:
        raise ValueError(
            f"BoxLocalization: {_name(sample)} has no ground truth: put "
            "dict(type='LoadAnnotations', with_bbox=True) behind Resize in the test pipeline"
        )
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return {
        "truth_boxes": boxes[has_area],
        "truth_labels": labels[has_area],
        "truth_ignored": ignored[has_area],
    }


def _check_frame(sample: Mapping[str, Any], boxes: np.ndarray) -> None:
    """Reject boxes that exceed the original image, since they were resized with it."""
    height, width = sample.get("ori_shape", (np.inf, np.inf))[:2]
    if (boxes[:, 2:] > np.array([width, height]) + 1).any():
        raise ValueError(
            f"BoxLocalization: {_name(sample)} has ground truth that ends at "
            f"{boxes[:, 2:].max(axis=0).tolist()}, and the image has {width} x {height} px: it was "
            "resized with the image. Put LoadAnnotations behind Resize in the test pipeline"
        )


def _arrays(instances: Mapping[str, Any], *names: str) -> list[np.ndarray]:
    return [np.asarray(instances[name].cpu().numpy()) for name in names]


def _name(sample: Mapping[str, Any]) -> Any:
    return sample.get("img_path", "an image")
