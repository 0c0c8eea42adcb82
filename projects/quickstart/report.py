"""Report the results of the quick start: a table, ``summary.json``, and ``report/index.html``.

``run.py`` runs this program in its work directory.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config

import dap  # noqa: F401  (lets checkpoints load)
from dap.comparison import compare, read_curve
from dap.evaluation.evaluate import evaluate_boxes
from dap.evaluation.ground_truth import read_ground_truth
from dap.files import write_bytes
from dap.pseudo_boxes import PseudoBoxStore
from dap.pseudo_boxes.stored_maps import StoredMaps
from dap.visualization.gallery import encoded
from dap.visualization.inspection import inspect_boxes
from dap.visualization.page import Section, image_source

METRICS = {"AP": "coco/bbox_mAP", "AP50": "coco/bbox_mAP_50"}
BOXES, REPORT = Path("work_dirs/classifier/pseudo_boxes"), Path("report")
IMAGES = Path("data/shapes/train")
TINY = "These figures say nothing: in size tiny all trainings are far too short."


def run_result(name: str) -> dict[str, Any] | None:
    """Return final AP and AP50 and the learning curve of a fine-tuning; None if it was not run."""
    work_dir = Path("work_dirs") / name
    if not work_dir.exists():
        return None
    curve = read_curve(work_dir, METRICS)
    return {metric: curve[-1][metric] for metric in METRICS} | {"curve": curve}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Format the learning curves of CLS, DAP and their difference as a table."""
    iterations = [row["iteration"] for row in results["cls"]["curve"]]
    lines = ["", "iteration".ljust(18) + "".join(f"{it:>8}" for it in iterations)]
    for metric in METRICS:
        values = {name: [row[metric] for row in of["curve"]] for name, of in results.items()}
        rows = {f"CLS {metric}": values["cls"], f"DAP {metric}": values["dap"]}
        rows[f"Δ {metric}"] = [d - c for c, d in zip(values["cls"], values["dap"], strict=True)]
        if "control" in values:
            rows[f"true boxes {metric}"] = values["control"]
        for name, row in rows.items():
            form = "{:>+8.1f}" if name.startswith("Δ") else "{:>8.1f}"
            lines.append(name.ljust(18) + "".join(form.format(value) for value in row))
    return "\n".join(lines)


def inspection(tiny: bool) -> dict[str, float]:
    """Write the page on boxes and fine-tunings.

    Args:
        tiny: Whether to warn that the results are meaningless.

    Returns:
        Recall and precision of the boxes at IoU .5 with the true boxes, which no step of DAP uses.
    """
    store = PseudoBoxStore(BOXES)
    config = Config.fromfile(str(next(Path("work_dirs/classifier").glob("*.py"))))
    checkpoint = Path("work_dirs/classifier/last_checkpoint").read_text().strip()
    maps = StoredMaps.from_config(store, config, checkpoint, IMAGES)
    truth = read_ground_truth("data/true_boxes.json")
    runs = {"CLS": "cls", "DAP": "dap", "true boxes": "control"}
    folders = {name: Path("work_dirs") / run for name, run in runs.items()}
    groups = [f"{name}={folder}" for name, folder in folders.items() if folder.exists()]
    words = compare(groups, REPORT / "comparison", metrics=list(METRICS))
    curves = (REPORT / "comparison" / "curves.png").read_bytes()
    pictures = [("Learning curves", image_source(curves, "png"))]
    texts = [TINY] if tiny else []
    section = Section("Fine-tuning from them", texts, listing=words, pictures=pictures)
    quality = evaluate_boxes(store, truth, maps.score_maps, most_maps=100)
    inspect_boxes(store, REPORT, maps, IMAGES, truth, quality, [section], count=16)
    gallery = np.fromfile(REPORT / "gallery_random.png", np.uint8)
    half = cv2.imdecode(gallery, cv2.IMREAD_REDUCED_COLOR_2)
    assert half is not None
    write_bytes(REPORT / "boxes.jpg", encoded(half))
    return {name: quality[name] for name in ("recall", "precision")}


def main() -> None:
    """Write the report and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--tiny", action="store_true", help="warn that the results are meaningless")
    args = parser.parse_args()
    runs = {name: run_result(name) for name in ("cls", "dap", "control")}
    results = {name: of for name, of in runs.items() if of is not None}
    boxes = json.loads((BOXES / "summary.json").read_text())
    summary = {
        **results,
        "boxes": {"boxes_per_image": boxes["merged"]["boxes_per_image"], **inspection(args.tiny)},
        "seed": args.seed,
    }
    Path("summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(table(results))
    print("\npseudo boxes:", ", ".join(f"{k} {v:.2f}" for k, v in summary["boxes"].items()))
    if args.tiny:
        print(TINY)
    print(f"figures: summary.json; to look at: {REPORT.resolve() / 'index.html'}\n")


if __name__ == "__main__":
    main()
