"""One's own figures beside the paper's."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from dap.evaluation.coco_figures import coco_figures
from dap.files import whole_file
from dap.visualization.tables import markdown_line, mean_and_deviation

from .catalogue import Cell, Row
from .plan import Plan

NOTE_MARK = "†"


def table(rows: Sequence[Row], plan: Plan, seeds: Sequence[int | None]) -> str:
    """Write rows as Markdown, the paper's figure and one's own in neighbouring columns.

    Args:
        rows: Of one experiment.
        plan: The plan whose jobs have run.
        seeds: Those it was run with: mean ± standard deviation are shown for several.

    Returns:
        The table; a cell is empty where there is no figure, Δ rows compare with the twin. What the
        paper's figures need to have said of them stands below it.
    """
    cells = [cell for cell in rows[0].cells if cell.metric]
    if not cells:
        return ""
    head = [text for cell in cells for text in (f"{cell.column}, paper", "yours")]
    lines = [markdown_line(["", *head]), markdown_line(["---"] * (len(head) + 1))]
    by_name = {row.name: row for row in rows}
    for row in rows:
        own = [figures(cell, plan, seeds) for cell in row.cells]
        body = zip(row.cells, own, strict=True)
        lines.append(
            markdown_line([row.name, *(text for pair in body for text in _written(*pair))])
        )
        twin = by_name.get(row.against or "")
        if twin is not None:
            lines.append(markdown_line([f"Δ to {twin.name}", *_gains(row, twin, plan, seeds)]))
    notes = dict.fromkeys(cell.note for row in rows for cell in row.cells if cell.note)
    return "\n".join([*lines, *(f"\n{NOTE_MARK} {note}" for note in notes)])


def figures(cell: Cell, plan: Plan, seeds: Iterable[int | None]) -> list[float]:
    """Read one's own figures of a cell, one a seed; those that are not there are left out.

    Returns:
        AP and accuracy in percent; sizes of boxes in pixels. One alone where seeds change nothing.
    """
    folders = dict.fromkeys(plan.result(cell.run, seed) for seed in seeds)
    found = (_figure(Path(folder), cell, plan) for folder in folders)
    return [figure for figure in found if figure is not None]


def _figure(folder: Path, cell: Cell, plan: Plan) -> float | None:
    metric = str(cell.metric)
    if metric.startswith("merged."):
        return _box_figure(folder / "summary.json", metric.removeprefix("merged."))
    if metric.startswith("coco/"):
        evaluator = plan.configs.load(cell.run.config).test_evaluator
        return _coco_figure(folder, evaluator.ann_file, metric)
    for path in sorted(folder.glob("*/*.json"), reverse=True):
        content = json.loads(path.read_text())
        if metric in content:
            return float(content[metric]) * (100 if metric.startswith("voc_") else 1)
    return None


def _box_figure(summary: Path, name: str) -> float | None:
    if not summary.exists():
        return None
    figure: float | None = json.loads(summary.read_text())["merged"][name]
    return figure


def _coco_figure(folder: Path, annotations: str, metric: str) -> float | None:
    """Read a figure of COCO; computed once from the predictions of the test."""
    predictions, computed = folder / "predictions.bbox.json", folder / "coco.json"
    if not predictions.exists():
        return None
    if not computed.exists() or computed.stat().st_mtime < predictions.stat().st_mtime:
        with whole_file(computed) as file:
            json.dump(coco_figures(annotations, predictions), file)
    return 100 * float(json.loads(computed.read_text())[metric])


def _written(cell: Cell, own: Sequence[float]) -> tuple[str, str]:
    paper = "" if cell.paper is None else f"{cell.paper:.{cell.decimals}f}"
    paper += f" {NOTE_MARK}" if cell.note else ""
    return paper, mean_and_deviation(own, cell.decimals)


def _gains(row: Row, twin: Row, plan: Plan, seeds: Sequence[int | None]) -> Iterable[str]:
    for cell, other in zip(row.cells, twin.cells, strict=True):
        known = cell.paper is not None and other.paper is not None
        mark = f" {NOTE_MARK}" if known and (cell.note or other.note) else ""
        yield f"{cell.paper - other.paper:+.2f}{mark}" if known else ""  # type: ignore[operator]
        own, others = figures(cell, plan, seeds), figures(other, plan, seeds)
        gain = statistics.fmean(own) - statistics.fmean(others) if own and others else None
        yield "" if gain is None else f"{gain:+.2f}"
