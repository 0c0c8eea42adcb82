"""The head start of one initialisation over another, in words (paper, Figure 5)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .runs import Group
from .tables import Column


@dataclass(frozen=True)
class MeanCurve:
    """Mean over the runs of a group, at the iterations that all of them have.

    Attributes:
        means: One dict per point with ``iteration`` and the columns by their labels. A metric that
            a run lacks at this iteration is left out.
        deviations: As many dicts with the columns' standard deviations (n - 1), empty for one run.
        partial_iterations: Iterations that only a part of the runs has.
    """

    means: list[dict[str, float]]
    deviations: list[dict[str, float]]
    partial_iterations: list[int]


def mean_curve(group: Group, columns: Sequence[Column]) -> MeanCurve:
    """Average the validations of a group, without interpolation."""
    runs = [{int(row["iteration"]): row for row in run.validations} for run in group.runs]
    common = set.intersection(*(set(run) for run in runs))
    partial_iterations = sorted(set().union(*runs) - common)
    means, deviations = [], []
    for iteration in sorted(common):
        by_metric = {
            column.label: [v for run in runs if (v := column.value(run[iteration])) is not None]
            for column in columns
        }
        mean, deviation = averaged({k: v for k, v in by_metric.items() if len(v) == len(runs)})
        means.append({"iteration": iteration, **mean})
        deviations.append(deviation)
    return MeanCurve(means, deviations, partial_iterations)


def averaged(values: Mapping[str, Sequence[float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Means, and standard deviations (n - 1) where there are two values or more, by metric."""
    means = {label: statistics.fmean(v) for label, v in values.items() if v}
    return means, {label: statistics.stdev(v) for label, v in values.items() if len(v) > 1}


def describe_head_start(
    group: Group, twin: Group, column: Column, at: Sequence[int] = ()
) -> list[str]:
    """Describe the gain of a group over its twin at some iterations and at the end.

    Args:
        group: Group whose head start is described.
        twin: Group that it is compared with.
        column: Metric to compare.
        at: Iterations; those that a run lacks are left out. Defaults to the first that all runs
            have, unless it is the only one.

    Returns:
        Sentences.
    """
    curve, twin_curve = (dict(_points(runs, column)) for runs in (group, twin))
    common = common_iterations(group, twin, column)
    chosen = [iteration for iteration in at if iteration in common] if at else common[:-1][:1]
    sentences = []
    for iteration in chosen:
        value, twin_value = curve[iteration], twin_curve[iteration]
        gain = f"{value - twin_value:+.1f} ({_run_counts(group, twin)})"
        sentences.append(
            f"At iteration {iteration:,} {group.label} has {column.label} {value:.1f} against "
            f"{twin.label} {twin_value:.1f}: {gain}."
        )
        if value > twin_value and iteration < max(twin_curve):
            sentences.append(_catch_up(list(twin_curve.items()), value, iteration, twin))
    if chosen and common[-1] not in chosen:
        last_gain = curve[common[-1]] - twin_curve[common[-1]]
        sentences.append(f"At iteration {common[-1]:,}, the last of both: {last_gain:+.1f}.")
    return sentences


def common_iterations(group: Group, twin: Group, column: Column) -> list[int]:
    """Iterations at which all runs of two groups have a metric."""
    twin_curve = dict(_points(twin, column))
    return [iteration for iteration, _ in _points(group, column) if iteration in twin_curve]


def reaching(points: Sequence[tuple[int, float]], value: float) -> float | None:
    """Iteration at which a curve first reaches a value, interpolated linearly.

    Args:
        points: Pairs of iteration and value, sorted by iteration.
        value: Value to reach.

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


def _catch_up(points: list[tuple[int, float]], value: float, start: int, twin: Group) -> str:
    """Say when the twin reaches a value after iteration ``start``."""
    later = [point for point in points if point[0] >= start]
    iteration = reaching(later, value)
    if iteration is None:
        return f"{twin.label} does not reach {value:.1f} by iteration {later[-1][0]:,}, its last."
    interpolated = "" if iteration in dict(later) else " (interpolated)"
    times = f", {iteration / start:.1f} times as many" if start else ""
    return f"{twin.label} reaches {value:.1f} at iteration {iteration:,.0f}{interpolated}{times}."


def _run_counts(group: Group, twin: Group) -> str:
    count, twin_count = len(group.runs), len(twin.runs)
    if count != twin_count:
        return f"means of {count} and {twin_count} runs"
    return "one run each" if count == 1 else f"mean of {count} seeds"
