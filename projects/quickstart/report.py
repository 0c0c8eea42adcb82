"""What came out of the quick start: table, ``summary.json``, ``curves.png``, ``gallery.png``.

Runs in the work directory of ``run.py``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from torch import Tensor, as_tensor

import dap  # noqa: F401  (lets checkpoints load)
from dap.pseudo_boxes import CamClassifier, build_classifier, settings_from_config
from dap.visualization import draw_curves, draw_gallery, read_curve

METRICS = {"AP": "coco/bbox_mAP", "AP50": "coco/bbox_mAP_50"}
BOXES = Path("work_dirs/classifier/pseudo_boxes")
IMAGES = Path("data/shapes/train")


def run_result(name: str) -> dict[str, Any] | None:
    """AP and AP50 at the end, and the curve, of a fine-tuning; None if it was not run."""
    work_dir = Path("work_dirs") / name
    if not work_dir.exists():
        return None
    curve = read_curve(work_dir, METRICS)
    return {metric: curve[-1][metric] for metric in METRICS} | {"curve": curve}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The learning curves as a table, CLS, DAP and their difference."""
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


def box_quality() -> dict[str, float]:
    """Compare the pseudo boxes with the true ones, which no step of DAP has seen.

    Returns:
        Share of objects that some box covers with IoU >= .5, and share of boxes that cover some
        object so.
    """
    coco = json.loads((BOXES / "annotations.json").read_text())
    truth = json.loads(Path("data/true_boxes.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    found: dict[str, list[list[float]]] = {name: [] for name in names.values()}
    true: dict[str, list[list[float]]] = {name: [] for name in names.values()}
    for annotation in coco["annotations"]:
        found[names[annotation["image_id"]]].append(annotation["bbox"])
    true_names = {image["id"]: image["file_name"] for image in truth["images"]}
    for annotation in truth["annotations"]:
        true[true_names[annotation["image_id"]]].append(annotation["bbox"])
    overlaps = [iou(np.array(found[name]).reshape(-1, 4), np.array(true[name])) for name in found]
    return {
        "objects_found": float(
            np.concatenate([o.max(axis=0, initial=0) >= 0.5 for o in overlaps]).mean()
        ),
        "boxes_right": float(
            np.concatenate([o.max(axis=1, initial=0) >= 0.5 for o in overlaps]).mean()
        ),
    }


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes xywh, shapes (N, 4) and (M, 4) → (N, M)."""
    end = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
    sides = np.clip(end - np.maximum(a[:, None, :2], b[None, :, :2]), 0, None)
    overlap = sides.prod(axis=2)
    return overlap / (a[:, None, 2:].prod(axis=2) + b[None, :, 2:].prod(axis=2) - overlap)


def gallery() -> None:
    """Draw two images of each class with their maps and boxes."""
    config = Config.fromfile(str(next(Path("work_dirs/classifier").glob("*.py"))))
    checkpoint = Path("work_dirs/classifier/last_checkpoint").read_text().strip()
    model, _ = build_classifier(config, checkpoint)
    classifier, settings = CamClassifier(model.eval()), settings_from_config(config)

    def cam(image: Tensor, label: int) -> tuple[np.ndarray, tuple[float, float]]:
        merged = classifier.maps(image, as_tensor([label]), settings)
        return merged.maps[0].numpy(), merged.cell_size

    coco = json.loads((BOXES / "annotations.json").read_text())
    per_class = len(coco["images"]) // len(coco["categories"])
    ids = [coco["images"][c * per_class + i]["id"] for c in range(16) for i in (0, 1)]
    draw_gallery(BOXES / "annotations.json", IMAGES, "gallery.png", ids, cam)


def main() -> None:
    """Write the report and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0, help="of all steps before this one")
    args = parser.parse_args()
    runs = {name: run_result(name) for name in ("cls", "dap", "control")}
    results = {name: of for name, of in runs.items() if of is not None}
    draw_curves(
        {name: of["curve"] for name, of in results.items()}, list(METRICS), "curves.png",
        f"5 images a class, seed {args.seed}",
    )  # fmt: skip
    gallery()
    boxes = json.loads((BOXES / "summary.json").read_text())
    summary = {
        **results,
        "boxes": {"boxes_per_image": boxes["merged"]["boxes_per_image"], **box_quality()},
        "seconds": args.seconds,
        "seed": args.seed,
    }
    Path("summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(table(results))
    print("\npseudo boxes:", ", ".join(f"{k} {v:.2f}" for k, v in summary["boxes"].items()))
    print("pictures: curves.png, gallery.png; figures: summary.json\n")


if __name__ == "__main__":
    main()
