"""Compare trainings from MMEngine's logs: tables, learning curves, k-shot curves, warnings."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from dap.files import whole_file

from .comparison_warnings import config_differences, find_warnings
from .config_difference import Difference, initialisation, shortened
from .curves import Curves, draw_curves
from .head_start import averaged, common_iterations, describe_head_start, mean_curve
from .runs import Group, group_runs
from .tables import (
    Column,
    Figures,
    all_columns,
    choose_columns,
    csv_table,
    latex_table,
    markdown_line,
    markdown_table,
)

PICTURES = ("curves.png", "curves.svg", "kshot.png", "kshot.svg")
SHOWN_DIFFERENCES = 40


def compare(
    runs: Sequence[str],
    out: str | os.PathLike[str],
    reference: str | None = None,
    metrics: Sequence[str] | None = None,
    best: str | None = None,
    at: Sequence[int] = (),
) -> str:
    """Compare runs and write the report, tables and pictures.

    ::

        out/
        ├── report.md        table, head start, runs, warnings, differences between configs
        ├── table.md, table.tex, table.csv
        ├── curves.png, curves.svg   metrics by iteration: mean ± standard deviation over seeds
        └── kshot.png, kshot.svg     metrics by images per class, for runs on several k-shot sets

    Args:
        runs: Work directories, or ``NAME=DIR,DIR…``; see `group_runs`.
        out: Folder to write to.
        reference: Name of the group that the others are compared with. Defaults to the first.
        metrics: Labels of metrics, or their names in the log. Defaults to the metrics of boxes.
        best: Metric that selects the validation to report: the one where it is highest. Defaults
            to the last validation.
        at: Iterations at which to report the head start. Defaults to the first one that all runs
            share.

    Returns:
        The report, in Markdown.

    Raises:
        ValueError: If an argument or a work directory is malformed.
        OSError: If a file cannot be written.
    """
    groups = group_runs(runs)
    names = list(dict.fromkeys(group.name for group in groups))
    reference = reference or names[0]
    if reference not in names:
        raise ValueError(f"--reference {reference}: expected the name of a group, one of {names}")
    groups.sort(key=lambda group: group.shots or math.inf)
    columns = all_columns(groups)
    best_column = choose_columns(columns, [best])[0] if best else None
    figures = Figures(groups, choose_columns(columns, metrics), reference, best_column)
    report = _report(figures, at)
    folder = Path(out)
    caption = describe_figures(figures)
    for name, text in (
        ("table.md", f"{markdown_table(figures)}\n\n{caption}\n"),
        ("table.tex", latex_table(figures, caption) + "\n"),
        ("table.csv", csv_table(figures)),
    ):
        with whole_file(folder / name) as file:
            file.write(text)
    pictures = _draw(figures, folder)
    with whole_file(folder / "report.md") as file:
        images = "".join(f"\n![{path.stem}]({path.name})\n" for path in pictures)
        file.write(f"{report}\n{images}")
    return report


def describe_figures(figures: Figures) -> str:
    """Describe in a few sentences what the figures of a table are."""
    tested = any(not run.validations for group in figures.groups for run in group.runs)
    validation = (
        f"Validation with the best {figures.best.label} of each run, chosen on the images that the "
        "figures are of"
        if figures.best
        else "Last validation of each run"
    )
    sentences = [validation + (", or its last test where it has none" if tested else "")]
    if any(column.factor == 100 for column in figures.columns):
        sentences.append("AP in percent")
    if any(len(group.runs) > 1 for group in figures.groups):
        sentences.append("Mean ± standard deviation (n - 1) over runs with other seeds")
    if any(figures.twin(group) for group in figures.groups):
        sentences.append("Δ is the difference of two means")
    if any("bbox_mAP" in column.key for column in figures.columns):
        sentences.append("MMDetection rounds COCO's AP to a tenth of a percent")
    return ". ".join(sentences) + "."


def main_column(columns: Sequence[Column]) -> Column:
    """The metric of the head start: AP50 if there is one, else the first."""
    return next((column for column in columns if column.label == "AP50"), columns[0])


def _report(figures: Figures, at: Sequence[int]) -> str:
    compared = config_differences(figures)
    sections = [
        ("", [describe_figures(figures), "", markdown_table(figures)]),
        ("Head start", _head_starts(figures, at)),
        ("Warnings", [f"- {warning}" for warning in find_warnings(figures)]),
        ("Runs", [_runs_line(group) for group in figures.groups]),
        *(
            (f"Config of {group.label} beside that of {twin.label}", _difference_table(differences))
            for group, twin, differences in compared
            if differences
        ),
    ]
    return "\n\n".join(
        "\n".join([*([f"## {title}", ""] if title else []), *lines])
        for title, lines in sections
        if lines
    )


def _head_starts(figures: Figures, at: Sequence[int]) -> list[str]:
    column = main_column(figures.columns)
    pairs = [(group, twin) for group in figures.groups if (twin := figures.twin(group))]
    shared = sorted({i for pair in pairs for i in common_iterations(*pair, column)})
    missing = [iteration for iteration in at if iteration not in shared]
    if missing:
        raise ValueError(
            f"--at {missing[0]}: expected an iteration at which all runs of two groups have "
            f"{column.label}, one of {shared}"
        )
    described = (describe_head_start(*pair, column, at) for pair in pairs)
    return [f"- {' '.join(sentences)}" for sentences in described if sentences]


def _runs_line(group: Group) -> str:
    """Seeds, initial weights and folders of a group's runs."""
    seeds = ", ".join(run.seed for run in group.runs)
    configs = [run.config for run in group.runs if run.config is not None]
    starts = dict.fromkeys(weights for config in configs for weights in initialisation(config))
    start = ", ".join(starts) or ("no checkpoint" if configs else "unknown weights")
    folders = ", ".join(str(run.folder) for run in group.runs)
    return f"- {group.label}: seed {seeds}; from {start}; {folders}"


def _difference_table(differences: Sequence[Difference]) -> list[str]:
    lines = [["key", "reference", "here"], ["---"] * 3]
    for difference in differences[:SHOWN_DIFFERENCES]:
        values = (shortened(difference.reference), shortened(difference.other))
        lines.append([f"`{difference.key}`", *(value.replace("|", r"\|") for value in values)])
    more = len(differences) - SHOWN_DIFFERENCES
    rest = ["", f"and {more} more"] if more > 0 else []
    return [*map(markdown_line, lines), *rest]


def _draw(figures: Figures, folder: Path) -> list[Path]:
    """Draw the curves that have points; pictures of an earlier comparison are removed."""
    for name in PICTURES:
        (folder / name).unlink(missing_ok=True)
    curves = {group.label: mean_curve(group, figures.columns) for group in figures.groups}
    pictures: list[tuple[str, str, Curves, Curves]] = []  # name, horizontal axis, means, deviations
    if any(len(curve.means) > 1 for curve in curves.values()):
        means = {label: curve.means for label, curve in curves.items() if curve.means}
        bands = {
            label: curve.deviations for label, curve in curves.items() if any(curve.deviations)
        }
        pictures.append(("curves", "iteration", means, bands))
    if len({group.shots for group in figures.groups} - {None}) > 1:
        pictures.append(("kshot", "shots", *_k_shot_points(figures)))
    drawn = []
    for name, x, points, deviations in pictures:
        measured = {key for curve in points.values() for point in curve for key in point}
        labels = [column.label for column in figures.columns if column.label in measured]
        title = "mean ± standard deviation over seeds" if any(map(any, deviations.values())) else ""
        if labels:
            for suffix in ("svg", "png"):
                path = folder / f"{name}.{suffix}"
                draw_curves(points, labels, path, title, deviations, x)
            drawn.append(path)  # the PNG
    return drawn


def _k_shot_points(figures: Figures) -> tuple[Curves, Curves]:
    """Means and standard deviations of each initialisation by number of shots."""
    points: dict[str, list[dict[str, float]]] = {}
    deviations: dict[str, list[dict[str, float]]] = {}
    for group in figures.groups:
        if group.shots is not None:
            values = {column.label: figures.values(group, column) for column in figures.columns}
            mean, deviation = averaged(values)
            points.setdefault(group.name, []).append({"shots": group.shots, **mean})
            deviations.setdefault(group.name, []).append(deviation)
    return points, deviations
