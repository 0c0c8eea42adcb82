"""Write tables of your figures beside the paper's."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from dap.comparison.tables import markdown_line, mean_and_deviation
from dap.evaluation.coco_figures import coco_figures
from dap.files import whole_file
from dap.jobs.jobs import Job
from dap.jobs.records import digest, result_folder
from dap.jobs.state import REPEATED, is_finished, latest_result, test_problem

from .catalogue import Cell, Row
from .plan import Plan

NOTE_MARK = "†"
FIGURE_KINDS = ("test", "boxes")  # kinds of jobs that give figures


def table(
    rows: Sequence[Row],
    plan: Plan,
    seeds: Sequence[int | None],
    problems: Mapping[str, str] | None = None,
) -> str:
    """Write rows as Markdown, with the paper's figure and yours in neighbouring columns.

    Args:
        rows: Rows of one experiment.
        plan: The plan whose jobs have run.
        seeds: Seeds of the runs; mean ± standard deviation are shown for several.
        problems: Result of :func:`find_problems`, if it is known already.

    Returns:
        The table. A cell without a figure is empty; Δ rows compare with the twin. Remarks on the
        paper's figures are below the table.
    """
    cells = [cell for cell in rows[0].cells if cell.metric]
    if not cells:
        return ""
    if problems is None:
        problems = find_problems(rows, plan, seeds)
    head = [text for cell in cells for text in (f"{cell.column}, paper", "yours")]
    lines = [markdown_line(["", *head]), markdown_line(["---"] * (len(head) + 1))]
    by_name = {row.name: row for row in rows}
    yours = {row.name: [figures(cell, plan, seeds, problems) for cell in row.cells] for row in rows}
    for row in rows:
        texts = map(_written, row.cells, yours[row.name])
        lines.append(markdown_line([row.name, *chain.from_iterable(texts)]))
        twin = by_name.get(row.against or "")
        if twin is not None:
            texts = map(_gain, row.cells, twin.cells, yours[row.name], yours[twin.name])
            lines.append(markdown_line([f"Δ to {twin.name}", *chain.from_iterable(texts)]))
    notes = dict.fromkeys(cell.note for row in rows for cell in row.cells if cell.note)
    return "\n".join([*lines, *(f"\n{NOTE_MARK} {note}" for note in notes)])


def find_problems(rows: Sequence[Row], plan: Plan, seeds: Iterable[int | None]) -> dict[str, str]:
    """Find results that were made with other settings or inputs than those of their table.

    Examples are the test of a checkpoint that was trained again later, and figures of a training
    with another total batch.

    Returns:
        Folder of the figures → reason to leave them out.
    """
    known: dict[str, str] = {}
    folders = dict.fromkeys(
        plan.result(cell.run, seed)
        for row in rows for cell in row.cells if cell.metric for seed in seeds
    )  # fmt: skip
    jobs = [job for job in plan.jobs.values() if job.kind in FIGURE_KINDS]
    by_folder = {str(result_folder(job)): job for job in jobs}
    problems = {folder: _problem(by_folder[folder], plan.jobs, known) for folder in folders}
    return {folder: problem for folder, problem in problems.items() if problem}


def _problem(job: Job, jobs: Mapping[str, Job], known: dict[str, str]) -> str:
    """Say why the result of a job does not belong to its table; ``''`` if it does.

    Args:
        job: Job whose result is the figure.
        jobs: All jobs by name. Those that the job depends on are checked as well.
        known: Job → earlier answer; the new answer is added.
    """
    if job.name not in known:
        makers = {other.makes: other for other in jobs.values()}
        problems = (_problem(makers[path], jobs, known) for path in job.reads)
        known[job.name] = next(filter(None, problems), "") or _result_problem(job)
    return known[job.name]


def _result_problem(job: Job) -> str:
    result = latest_result(job)
    if result is None:
        return ""
    if job.kind in REPEATED:
        return test_problem(job, result)
    try:
        is_finished(job)
    except ValueError as error:
        return str(error)
    return ""


def figures(
    cell: Cell, plan: Plan, seeds: Iterable[int | None], problems: Mapping[str, str]
) -> list[float]:
    """Read your figures of a cell, one per seed; missing ones are left out.

    Args:
        cell: Cell of a table.
        plan: The plan whose jobs have run.
        seeds: Seeds of the runs.
        problems: Folders whose figures are left out, see :func:`find_problems`.

    Returns:
        AP and accuracy in percent, sizes of boxes in pixels. One figure if seeds change nothing.
    """
    folders = dict.fromkeys(plan.result(cell.run, seed) for seed in seeds)
    read = (_figure(Path(folder), cell, plan) for folder in folders if folder not in problems)
    return [figure for figure in read if figure is not None]


def _figure(folder: Path, cell: Cell, plan: Plan) -> float | None:
    metric = str(cell.metric)
    if metric.startswith("merged."):
        return _box_figure(folder / "summary.json", metric.removeprefix("merged."))
    if metric.startswith("coco/"):
        evaluator = plan.configs.load(cell.run.config).test_evaluator
        return _coco_figure(folder, evaluator.ann_file, metric)
    results = sorted(folder.glob("*/*.json"))
    content = json.loads(results[-1].read_text()) if results else {}
    if metric not in content:
        return None
    return float(content[metric]) * (100 if metric.startswith("voc_") else 1)


def _box_figure(summary: Path, name: str) -> float | None:
    if not summary.exists():
        return None
    figure: float | None = json.loads(summary.read_text())["merged"][name]
    return figure


def _coco_figure(folder: Path, annotations: str, metric: str) -> float | None:
    """Read a figure of COCO. All of them are computed from the predictions once, and stored."""
    predictions, computed = folder / "predictions.bbox.json", folder / "coco.json"
    if not predictions.exists():
        return None
    made_from = {"predictions": digest(str(predictions)), "annotations": digest(annotations)}
    content = json.loads(computed.read_text()) if computed.exists() else {}
    if content.get("made_from") != made_from:
        content = {**coco_figures(annotations, predictions), "made_from": made_from}
        with whole_file(computed) as file:
            json.dump(content, file)
    return 100 * float(content[metric])


def _written(cell: Cell, values: Sequence[float]) -> tuple[str, str]:
    paper = "" if cell.paper is None else f"{cell.paper:.{cell.decimals}f}"
    paper += f" {NOTE_MARK}" if cell.note else ""
    return paper, mean_and_deviation(values, cell.decimals)


def _gain(
    cell: Cell, other: Cell, values: Sequence[float], other_values: Sequence[float]
) -> tuple[str, str]:
    """The paper's difference to the twin's cell, and yours."""
    paper = ""
    if cell.paper is not None and other.paper is not None:
        mark = f" {NOTE_MARK}" if cell.note or other.note else ""
        paper = f"{cell.paper - other.paper:+.2f}{mark}"
    if not values or not other_values:
        return paper, ""
    return paper, f"{statistics.fmean(values) - statistics.fmean(other_values):+.2f}"
