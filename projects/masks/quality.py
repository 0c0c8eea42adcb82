"""Evaluate the pseudo boxes and masks of a seed with the true ones, which no step of DAP uses.

``run.py`` runs this program in its work directory. It writes ``report/quality.json`` and the report
on the boxes, ``report/index.html``.
"""

from __future__ import annotations

import json
from pathlib import Path

from mmengine.config import Config

import dap  # noqa: F401  (lets checkpoints load)
from dap.evaluation.evaluate import evaluate_boxes
from dap.evaluation.ground_truth import read_ground_truth
from dap.files import write_bytes
from dap.pseudo_boxes import PseudoBoxStore
from dap.pseudo_boxes.stored_maps import StoredMaps
from dap.visualization.inspection import inspect_boxes

CLASSIFIER, IMAGES = Path("work_dirs/classifier"), Path("data/shapes/train")


def main() -> None:
    """Write the figures and the report."""
    store = PseudoBoxStore(CLASSIFIER / "pseudo_boxes")
    config = Config.fromfile(str(next(CLASSIFIER.glob("*.py"))))
    checkpoint = (CLASSIFIER / "last_checkpoint").read_text().strip()
    maps = StoredMaps.from_config(store, config, checkpoint, IMAGES)
    truth = read_ground_truth("data/true_boxes.json", with_masks=True)
    quality = evaluate_boxes(store, truth, maps.score_maps, most_maps=200)
    masks = quality["masks"]
    figures = {
        "recall of the boxes": quality["recall"],
        "precision of the boxes": quality["precision"],
        "mean IoU of the masks": masks["mean_iou"],
        "recall of the masks": masks["recall"],
        "precision of the masks": masks["precision"],
        "PxAP of the maps": quality["score_maps"]["px_ap"],
    }
    inspect_boxes(store, "report", None, IMAGES, truth, quality, count=16)
    write_bytes(Path("report/quality.json"), json.dumps(figures, indent=1).encode())


if __name__ == "__main__":
    main()
