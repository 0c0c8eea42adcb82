"""The head start of one initialisation over another, in words (paper, Figure 5)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .runs import Group
from .tables import Column


@dataclass(frozen=True)
class MeanCurve:
    """Mean over the runs of a group, at the iterations that all of them have.

    Attributes:
        means: One dict a point: ``iteration`` and the columns' labels; a metric that some run
            lacks there is left out.
        deviations: As many dicts: the columns' standard deviations (n - 1); empty for one run.
        left_out: Iterations that only a part of the runs has.
    """

    means: list[dict[str, float]]
    deviations: list[dict[str, float]]
    left_out: list[int]


def mean_curve(group: Group, columns: Sequence[Column]) -> MeanCurve:
    """Average the validations of a group; nothing is interpolated."""
    runs = [{int(row["iteration"]): row for row in run.validations} for run in group.runs]
    common = set.intersection(*(set(run) for run in runs))
    left_out = sorted(set().union(*runs) - common)
    means, deviations = [], []
    for iteration in sorted(common):
        by_metric = {
            column.label: [column.value(run[iteration]) for run in runs] for column in columns
        }
        whole = {label: [v for v in values if v is not None] for label, values in by_metric.items()}
        whole = {label: values for label, values in whole.items() if len(values) == len(runs)}
        mean = {label: statistics.fmean(values) for label, values in whole.items()}
        means.append({"iteration": iteration, **mean})
        if len(runs) > 1:
            deviations.append({label: statistics.stdev(values) for label, values in whole.items()})
    return MeanCurve(means, deviations, left_out)


def describe_head_start(
    group: Group, twin: Group, column: Column, at: Sequence[int] = ()
) -> list[str]:
    """Describe the lead of a group over its twin at some iterations and at the end.

    Args:
        group: The one with the head start.
        twin: The one it is compared with.
        column: Metric to compare.
        at: Iterations; those that not all runs have are left out. Defaults to the first that all
            have, unless it is the only one: then there is no curve.

    Returns:
        Sentences.
    """
    curve, other = (dict(_points(of, column)) for of in (group, twin))
    common = common_iterations(group, twin, column)
    chosen = [iteration for iteration in at if iteration in common] if at else common[:-1][:1]
    sentences = []
    for iteration in chosen:
        value, others = curve[iteration], other[iteration]
        sentences.append(
            f"At iteration {iteration:,} {group.label} has {column.label} {value:.1f} against "
            f"{twin.label} {others:.1f}: {value - others:+.1f} ({_counted(group, twin)})."
        )
        if value > others and iteration < max(other):
            sentences.append(_reached(list(other.items()), value, iteration, twin))
    if chosen and common[-1] not in chosen:
        gain = curve[common[-1]] - other[common[-1]]
        sentences.append(f"At iteration {common[-1]:,}, the last of both: {gain:+.1f}.")
    return sentences


def common_iterations(group: Group, twin: Group, column: Column) -> list[int]:
    """Iterations at which all runs of two groups have a metric."""
    other = dict(_points(twin, column))
    return [iteration for iteration, _ in _points(group, column) if iteration in other]


def reaching(points: Sequence[tuple[int, float]], value: float) -> float | None:
    """Iteration at which a curve first reaches a value, linear between its points.

    Args:
        points: Iteration and value, by iteration.
        value: To be reached.

    Returns:
        The iteration; None if no point reaches the value.
    """
    before: tuple[int, float] | None = None
    for iteration, reached in points:
        if reached >= value:
            if before is None:
                return float(iteration)
            share = (value - before[1]) / (reached - before[1])
            return before[0] + share * (iteration - before[0])
        before = (iteration, reached)
    return None


def _points(group: Group, column: Column) -> list[tuple[int, float]]:
    means = mean_curve(group, [column]).means
    return [(int(row["iteration"]), row[column.label]) for row in means if column.label in row]


def _reached(points: list[tuple[int, float]], value: float, start: int, twin: Group) -> str:
    """When the twin, from an iteration on, reaches a value."""
    later = [point for point in points if point[0] >= start]
    iteration = reaching(later, value)
    if iteration is None:
        return f"{twin.label} does not reach {value:.1f} by iteration {later[-1][0]:,}, its last."
    how = "" if iteration in dict(later) else " (interpolated)"
    times = f", {iteration / start:.1f} times as many" if start else ""
    return f"{twin.label} reaches {value:.1f} at iteration {iteration:,.0f}{how}{times}."


def _counted(group: Group, twin: Group) -> str:
    count, other = len(group.runs), len(twin.runs)
    if count != other:
        return f"means of {count} and {other} runs"
    return "one run each" if count == 1 else f"mean of {count} seeds"
