"""Learning curves of fine-tuning runs (paper, Figure 5) and k-shot curves (Figures 3 and 4)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dap.files import write_bytes

Curves = Mapping[str, Sequence[Mapping[str, float]]]  # name → points
LINES = ("-", "--", ":", "-.")  # line styles; each is used with ten colours
BOOKKEEPING = {"step", "epoch", "time", "data_time"}  # keys of a validation that are not metrics


@dataclass(frozen=True)
class Log:
    """The content of a run's logs.

    Attributes:
        files: The logs, sorted by time.
        validations: One dict per validation: ``iteration``, and the results under their names in
            the log, unchanged.
        iterations: Iteration of the last line, of training or validation.
        cut_off: Logs whose last line is incomplete because the run was killed; that line is left
            out.
        without_result: Iterations of validations without a result. MMDetection's COCO metric
            writes none if nothing was detected.
    """

    files: list[Path]
    validations: list[dict[str, float]]
    iterations: int
    cut_off: list[Path]
    without_result: list[int]


def read_log(work_dir: str | os.PathLike[str]) -> Log:
    """Read the validation results of the run in an MMEngine work directory.

    Each start of a run writes a log. From its first iteration on, a later log replaces earlier
    ones: completely if the run started anew, else after the checkpoint that it resumed. If the
    runner counts validations by epoch, a validation gets the iteration of the training line before
    it.

    Args:
        work_dir: Folder with ``<timestamp>/vis_data/scalars.json``.

    Raises:
        ValueError: If there is no log, or a line other than the last of a log is not JSON.
    """
    files = sorted(Path(work_dir).glob("*/vis_data/scalars.json"))
    if not files:
        raise ValueError(f"{work_dir} holds no <timestamp>/vis_data/scalars.json: no finished run")
    validations: list[dict[str, float]] = []
    iterations, cut_off = 0, []
    without_result: list[int] = []
    for file in files:
        rows, whole = _read_rows(file)
        cut_off += [] if whole else [file]
        # If an iteration-based runner logs validations by epoch, their step is 0.
        first = next((row["step"] for row in rows if row["step"]), math.inf)
        validations = [point for point in validations if point["iteration"] < first]
        without_result = [iteration for iteration in without_result if iteration < first]
        trained = int(validations[-1]["iteration"]) if validations else 0
        for row in rows:
            trained = max(trained, row.get("iter", 0))
            if "iter" not in row:
                trained = max(trained, row["step"])
                if results := _results(row):
                    validations.append({"iteration": trained, **results})
                else:
                    without_result.append(trained)
        iterations = trained if rows else iterations
    return Log(files, validations, iterations, cut_off, without_result)


def read_curve(
    work_dir: str | os.PathLike[str], metrics: Mapping[str, str]
) -> list[dict[str, float]]:
    """Read the validations of a run that have all of some metrics; see `read_log`.

    Args:
        work_dir: Folder with ``<timestamp>/vis_data/scalars.json``.
        metrics: New name → name in MMEngine's log, such as ``{'AP50': 'coco/bbox_mAP_50'}``.

    Returns:
        One dict per validation: ``iteration`` and the metrics, in percent.

    Raises:
        ValueError: If there is no log, or no such validation in any.
    """
    log = read_log(work_dir)
    curve = [
        {"iteration": row["iteration"], **{name: 100 * row[key] for name, key in metrics.items()}}
        for row in log.validations
        if all(key in row for key in metrics.values())
    ]
    if not curve:
        raise ValueError(
            f"{work_dir} holds no validation with {sorted(metrics.values())} in "
            f"{len(log.files)} log(s)"
        )
    return curve


def _read_rows(file: Path) -> tuple[list[dict[str, Any]], bool]:
    """Read the lines of a log, and whether the last of them is complete."""
    lines = file.read_text(errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({**row, "step": row.get("step", 0)})
        except (json.JSONDecodeError, AttributeError, TypeError) as error:
            if number == len(lines):
                return rows, False
            raise ValueError(
                f"{file}, line {number}: expected a JSON object, as MMEngine writes, found "
                f"{line[:40]!r}. Only the last line may be cut off; remove this one if the file "
                "was edited by hand"
            ) from error
    return rows, True


def _results(row: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: value
        for key, value in row.items()
        if key not in BOOKKEEPING and isinstance(value, int | float)
    }


def draw_curves(
    curves: Curves,
    metrics: Sequence[str],
    out: str | os.PathLike[str],
    title: str = "",
    deviations: Curves | None = None,
    x: str = "iteration",
) -> Path:
    """Plot learning curves, or metrics by number of images per class, one panel per metric.

    Args:
        curves: Name → points with ``x`` and metrics. A point that lacks a metric is left out of
            its panel.
        metrics: Metric of each panel.
        out: File to write, PNG or SVG by its suffix.
        title: Title of the figure.
        deviations: Name → as many points with the metrics' standard deviations, drawn as bands, or
            as error bars by shots. Curves without an entry, and points without a deviation, have
            none.
        x: ``'iteration'``, or ``'shots'`` for images per class on a logarithmic axis.
    """
    figure, panels = _panels(metrics, title)
    for panel, metric in zip(panels, metrics, strict=True):
        for index, (name, points) in enumerate(curves.items()):
            style: dict[str, Any] = {
                "color": f"C{index % 10}",
                "linestyle": LINES[index // 10 % len(LINES)],
                "marker": "o",
                "markersize": 4,
                "label": _plain(name),
            }
            spreads = (deviations or {}).get(name)
            measured = [i for i, point in enumerate(points) if metric in point]
            xs, ys = ([points[i][key] for i in measured] for key in (x, metric))
            spread = [spreads[i].get(metric, math.nan) for i in measured] if spreads else []
            if x == "shots":
                panel.errorbar(xs, ys, spread or None, capsize=3, **style)
                continue
            panel.plot(xs, ys, **style)
            if spread:
                low, high = np.subtract(ys, spread), np.add(ys, spread)
                panel.fill_between(xs, low, high, alpha=0.2, color=style["color"], linewidth=0)
        if x == "shots":
            shots = sorted({point[x] for points in curves.values() for point in points})
            panel.set_xscale("log")
            panel.set_xticks(shots, [f"{k:g}" for k in shots])
            panel.set_xticks([], minor=True)
        panel.set(xlabel="images per class" if x == "shots" else x, ylabel=metric)
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    return _save(figure, Path(out))


def _panels(metrics: Sequence[str], title: str) -> tuple[Figure, list[Axes]]:
    """Create a figure with one panel per metric, at most three in a row."""
    columns = min(3, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    figure = Figure(figsize=(4.5 * columns, 3.5 * rows), layout="constrained")
    figure.suptitle(_plain(title))
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in panels[len(metrics) :]:
        unused.set_axis_off()
    return figure, panels[: len(metrics)]


def _plain(text: str) -> str:
    """Escape ``$``, which starts a formula in matplotlib."""
    return text.replace("$", r"\$")


def _save(figure: Figure, out: Path) -> Path:
    """Write a figure; SVG keeps its texts as text."""
    file = BytesIO()
    file_format = out.suffix.removeprefix(".")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dap"}):
        metadata = {"Date": None} if file_format == "svg" else None
        figure.savefig(file, format=file_format, dpi=110, metadata=metadata)
    write_bytes(out, file.getvalue())
    return out
