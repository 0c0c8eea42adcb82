"""COCO's metrics of a file of predictions, in full precision."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

from mmdet.datasets.api_wrappers import COCO, COCOeval

# The order of pycocotools' summary → mmdet's names.
NAMES = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")


def coco_figures(
    annotations: str | os.PathLike[str], predictions: str | os.PathLike[str]
) -> dict[str, float]:
    """Evaluate predictions by COCO's protocol: all classes, at most 100 boxes per image.

    mmdet's ``CocoMetric`` computes the same values but rounds them to a tenth of a percent, which
    is as large as some gains in the paper's tables.

    Args:
        annotations: COCO file with the ground truth.
        predictions: File ``….bbox.json`` written by ``CocoMetric(outfile_prefix=…)``. It may hold
            an empty list.

    Returns:
        ``coco/bbox_mAP``, ``…_50``, ``…_75``, ``…_s``, ``…_m``, ``…_l`` in [0, 1]; -1 if there is
        no object of that size.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(os.fspath(annotations))
        evaluation = COCOeval(truth, _load_predictions(truth, Path(predictions)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {
        f"coco/bbox_{name}": float(value)
        for name, value in zip(NAMES, evaluation.stats[:6], strict=True)
    }


def _load_predictions(truth: COCO, path: Path) -> COCO:
    """Load predictions; unlike pycocotools, accept an empty list."""
    predictions = json.loads(path.read_text())
    if predictions:
        return truth.loadRes(predictions)
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty
