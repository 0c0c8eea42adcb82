"""Tables of means over seeds in the paper's layout: Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO

from .runs import Group, LoggedRun

# The paper's columns (Tables 1 and 4) by MMDetection's names.
BOX_COLUMNS = {
    "bbox_mAP": "AP",
    "bbox_mAP_50": "AP50",
    "bbox_mAP_75": "AP75",
    "bbox_mAP_s": "APs",
    "bbox_mAP_m": "APm",
    "bbox_mAP_l": "APl",
}
VOC_COLUMN = re.compile(r"mAP|AP\d+")
ELEVEN_POINTS = "voc_07"  # prefix of VOC 2007's own metric in our configs
# Metrics of MMDetection in [0, 1], shown in percent; -1 if there is nothing to measure.
FRACTION = re.compile(
    r"(bbox|segm|proposal)_m?AP\w*|mAP(_\w+)?|AP\d+|AR@.*|recall@.*|\w+_precision"
    r"|gt_known_localization|corloc|average_recall|(precision|recall)(_\w+)?"
)
LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "[*"},  # else arguments of \\
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
}


@dataclass(frozen=True)
class Column:
    """A metric in a table.

    Attributes:
        label: ``'AP50'``.
        key: Its name in the log, ``'coco/bbox_mAP_50'``.
        factor: 100 for a metric that is shown in percent, else 1.
    """

    label: str
    key: str
    factor: float

    def value(self, results: Mapping[str, float]) -> float | None:
        """Figure to show; None if it was not measured, is not finite, or is -1 for a fraction."""
        value = results.get(self.key)
        if value is None or not math.isfinite(value) or (self.factor == 100 and value < 0):
            return None
        return self.factor * value


@dataclass(frozen=True)
class Figures:
    """Content of a table.

    Attributes:
        groups: Rows, sorted by the number of shots; whole training sets last.
        columns: Metrics.
        reference: Name of the groups that others with the same number of shots are compared with.
        best: Metric that selects the validation of each run, the one where it is highest; None for
            the last validation.
    """

    groups: Sequence[Group]
    columns: Sequence[Column]
    reference: str
    best: Column | None = None

    def values(self, group: Group, column: Column) -> list[float]:
        """Figures of a group's runs; missing ones are left out."""
        values = (column.value(self._results(run)) for run in group.runs)
        return [value for value in values if value is not None]

    def twin(self, group: Group) -> Group | None:
        """Group to compare with; None for the reference itself, or if there is none."""
        return next(
            (
                other
                for other in self.groups
                if (other.name, other.shots) == (self.reference, group.shots) and other is not group
            ),
            None,
        )

    def gain(self, group: Group, column: Column) -> float | None:
        """Difference between the means of a group and its twin; None if one is missing."""
        twin = self.twin(group)
        values = self.values(group, column)
        twin_values = self.values(twin, column) if twin else []
        if not values or not twin_values:
            return None
        return statistics.fmean(values) - statistics.fmean(twin_values)

    def _results(self, run: LoggedRun) -> Mapping[str, float]:
        if not run.validations:
            return run.test_results
        if self.best is None:
            return run.validations[-1]
        rated = [(self.best.value(row), row) for row in run.validations]
        known = [(value, row) for value, row in rated if value is not None]
        return max(known, key=lambda pair: pair[0])[1] if known else {}


def all_columns(groups: Sequence[Group]) -> list[Column]:
    """List every metric of some runs under the paper's name, the paper's columns first.

    VOCMetric rounds ``AP50`` to a tenth of a percent; with one IoU threshold, ``mAP`` is the same
    figure unrounded. It is then shown as AP50, and the rounded one is left out.
    """
    runs = [run for group in groups for run in group.runs]
    results = [results for run in runs for results in (*run.validations, run.test_results)]
    keys = list(dict.fromkeys(key for row in results for key in row if key != "iteration"))
    labels = {key: label for key in keys if (label := _label(key, keys))}
    order = [*BOX_COLUMNS.values()]
    ranked = sorted(
        labels, key=lambda k: (not _is_box_metric(k), _rank(labels[k], order), keys.index(k))
    )
    shared = [label for label in labels.values() if list(labels.values()).count(label) > 1]
    return [
        Column(
            f"{labels[key]} ({key.rpartition('/')[0]})" if labels[key] in shared else labels[key],
            key,
            100 if FRACTION.fullmatch(_metric(key)) else 1,
        )
        for key in ranked
    ]


def choose_columns(columns: Sequence[Column], names: Sequence[str] | None) -> list[Column]:
    """Find columns by label or by name in the log. Defaults to metrics of boxes, else to all.

    Raises:
        ValueError: If there is no such column.
    """
    if not names:
        return [column for column in columns if _is_box_metric(column.key)] or list(columns)
    by_name = {name: column for column in columns for name in (column.key, column.label)}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ValueError(
            f"metric {missing[0]!r}: expected one of {[column.label for column in columns]}, or "
            f"its name in the log, {[column.key for column in columns]}"
        )
    return [by_name[name] for name in names]


def mean_and_deviation(values: Sequence[float], decimals: int = 2) -> str:
    """Write mean ± standard deviation (n - 1); the mean for one value, '' for none."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{decimals}f}"
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else mean


def markdown_line(texts: Iterable[str]) -> str:
    """Write a row of a table in Markdown."""
    return f"| {' | '.join(texts)} |"


def markdown_table(figures: Figures) -> str:
    """Write the table in Markdown, with a Δ row below each group that has a twin."""
    head, *body = _cells(figures)
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(markdown_line(cell.replace("|", r"\|") for cell in line) for line in lines)


def latex_table(figures: Figures, caption: str) -> str:
    """Write the table as a ``tabular`` that needs no package; the caption is a comment."""
    head, *body = (" & ".join(map(_latex, line)) + r" \\" for line in _cells(figures))
    columns = "l" + "r" * (1 + len(figures.columns))
    return "\n".join(
        [
            *(f"% {line}" for line in caption.splitlines()),
            f"\\begin{{tabular}}{{{columns}}}",
            *(r"\hline", head, r"\hline", *body, r"\hline"),
            r"\end{tabular}",
        ]
    )


def csv_table(figures: Figures) -> str:
    """Write one line per group and metric, for programs, with ten significant digits."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ("group", "shots", "metric", "name_in_log", "mean", "deviation", "n", "values")
    writer.writerow((*columns, "difference", "reference"))
    for group in figures.groups:
        twin = figures.twin(group)
        for column in figures.columns:
            values = figures.values(group, column)
            mean = statistics.fmean(values) if values else None
            deviation = statistics.stdev(values) if len(values) > 1 else None
            writer.writerow(
                (
                    *(group.name, group.shots, column.label, column.key),
                    *(_number(mean), _number(deviation), len(values)),
                    " ".join(map(_number, values)),
                    _number(figures.gain(group, column)),
                    twin.label if twin else "",
                )
            )
    return text.getvalue()


def _cells(figures: Figures) -> list[list[str]]:
    """Texts of the table's cells; the first row is the head."""
    lines = [["", "seeds", *(column.label for column in figures.columns)]]
    for group in figures.groups:
        texts = [_cell(figures.values(group, column), group) for column in figures.columns]
        lines.append([group.label, str(len(group.runs)), *texts])
        twin = figures.twin(group)
        if twin is not None:
            gains = (figures.gain(group, column) for column in figures.columns)
            texts = ["" if gain is None else f"{gain:+.2f}" for gain in gains]
            lines.append([f"Δ to {twin.label}", "", *texts])
    return lines


def _cell(values: Sequence[float], group: Group) -> str:
    """Text of a cell, with the number of values if some runs have none."""
    text = mean_and_deviation(values)
    return f"{text} (n={len(values)})" if text and len(values) < len(group.runs) else text


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _metric(key: str) -> str:
    """``'bbox_mAP'`` of ``'coco/bbox_mAP'``."""
    return key.rpartition("/")[2]


def _is_box_metric(key: str) -> bool:
    return _metric(key) in BOX_COLUMNS or VOC_COLUMN.fullmatch(_metric(key)) is not None


def _rank(label: str, order: Sequence[str]) -> int:
    return order.index(label) if label in order else len(order)


def _label(key: str, keys: Sequence[str]) -> str:
    """Label of a column; '' if another column shows the same figure unrounded."""
    prefix, _, metric = key.rpartition("/")
    if metric in BOX_COLUMNS:
        return BOX_COLUMNS[metric]
    if not VOC_COLUMN.fullmatch(metric) or f"{prefix}/mAP_50" in keys:  # the latter: proposals
        return key
    same_prefix = [other for other in keys if other.rpartition("/")[0] == prefix]
    thresholds = [m for other in same_prefix if re.fullmatch(r"AP\d+", m := _metric(other))]
    if len(thresholds) == 1 and f"{prefix}/mAP".lstrip("/") in same_prefix:
        name = thresholds[0] if metric == "mAP" else ""
    else:
        name = metric
    return f"{name} 11 points" if name and prefix == ELEVEN_POINTS else name
