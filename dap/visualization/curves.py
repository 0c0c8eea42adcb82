"""Learning curves of fine-tuning runs (paper, Figure 5)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def read_curve(
    work_dir: str | os.PathLike[str], metrics: Mapping[str, str]
) -> list[dict[str, float]]:
    """Read the validation results of the run in an MMEngine work directory.

    Each start of a run leaves a log. What a later one trained anew replaces what earlier ones
    have from its first iteration on: all if it was a fresh run, else what came after the
    checkpoint that it resumed.

    Args:
        work_dir: Folder with ``<timestamp>/vis_data/scalars.json``.
        metrics: Name to give → name in MMEngine's log, such as ``{'AP50':
            'coco/bbox_mAP_50'}``.

    Returns:
        One dict per validation: ``iteration`` and the metrics, in percent. A runner that counts
        validations by epoch leaves the iteration of its last training line before.

    Raises:
        ValueError: If there is no log, or no validation in any.
    """
    logs = sorted(Path(work_dir).glob("*/vis_data/scalars.json"))
    if not logs:
        raise ValueError(f"{work_dir} holds no <timestamp>/vis_data/scalars.json: no finished run")
    curve: list[dict[str, float]] = []
    for log in logs:
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        # Validations counted by epoch have a step of 0 in a runner that counts iterations.
        first = next((row["step"] for row in rows if row["step"]), math.inf)
        curve = [point for point in curve if point["iteration"] < first]
        trained = curve[-1]["iteration"] if curve else 0
        for row in rows:
            trained = max(trained, row.get("iter", 0))
            if all(key in row for key in metrics.values()):
                values = {name: 100 * row[key] for name, key in metrics.items()}
                curve.append({"iteration": max(row["step"], trained), **values})
    if not curve:
        raise ValueError(
            f"{work_dir} holds no validation with {sorted(metrics.values())} in {len(logs)} log(s)"
        )
    return curve


def draw_curves(
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    metrics: Sequence[str],
    out: str | os.PathLike[str],
    title: str = "",
) -> Path:
    """Plot the curves of several runs, one panel a metric, as PNG or SVG by the file's ending."""
    figure = Figure(figsize=(4.5 * len(metrics), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, metric in zip(
        figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
        for name, curve in curves.items():
            panel.plot(
                [row["iteration"] for row in curve],
                [row[metric] for row in curve],
                marker="o",
                label=name,
            )
        panel.set(xlabel="iteration", ylabel=metric)
        panel.grid(alpha=0.3)
        panel.legend()
    figure.suptitle(title)
    figure.savefig(out, dpi=110)
    return Path(out)
