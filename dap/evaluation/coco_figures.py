"""COCO's figures from a file of predictions, in full precision."""

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
    """Evaluate predictions as COCO does: all classes, at most 100 boxes per image.

    mmdet's ``CocoMetric`` computes the same and rounds to a tenth of a percent, which is as much
    as some gains in the paper's tables.

    Args:
        annotations: COCO file with the ground truth.
        predictions: What ``CocoMetric(outfile_prefix=…)`` writes: ``….bbox.json``. It may be an
            empty list.

    Returns:
        ``coco/bbox_mAP``, ``…_50``, ``…_75``, ``…_s``, ``…_m``, ``…_l`` in [0, 1]; -1 for a size
        that no object has.
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
    """Load predictions, also none, which pycocotools does not."""
    predictions = json.loads(path.read_text())
    if predictions:
        return truth.loadRes(predictions)
    nothing = COCO()
    nothing.dataset = {**truth.dataset, "annotations": []}
    nothing.createIndex()
    return nothing
