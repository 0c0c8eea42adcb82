"""Warnings about runs that differ in more than their initialisation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .config_difference import Difference, differences, is_initialisation, shortened
from .head_start import mean_curve
from .runs import Group, LoggedRun
from .tables import Figures

ONE_RUN = (
    "one run is no evidence: the paper prints the same run as AP50 79.93 (Table 2) and as 79.52 "
    "(Table 9). Train with three seeds"
)
MAX_LISTED = 6  # differences that a warning lists


def find_warnings(figures: Figures) -> list[str]:
    """List all warnings about a comparison, as sentences."""
    warnings = [
        f"{run.folder}: {note}" for g in figures.groups for run in g.runs for note in run.notes
    ]
    single = [group.label for group in figures.groups if len(group.runs) == 1]
    if single:
        warnings.append(f"{_joined(single)}: {ONE_RUN}")
    for group in figures.groups:
        warnings += _warnings_within(group)
        warnings += _warnings_of_curve(group)
    for group, twin, differing in config_differences(figures):
        warnings += _warnings_of_pair(group, twin, differing)
    if len({group.name for group in figures.groups}) > 1:
        warnings += _warnings_without_twin(figures)
    return warnings


def config_differences(figures: Figures) -> list[tuple[Group, Group, list[Difference]]]:
    """List each group, its twin, and the differences of their configs beyond initialisation.

    The list of differences is empty if one of the two has no config; `find_warnings` reports that.
    """
    compared = []
    for group in figures.groups:
        twin = figures.twin(group)
        if twin is not None:
            differing = _differences(twin.values, group.values)
            compared.append((group, twin, [d for d in differing if not is_initialisation(d.key)]))
    return compared


def _warnings_within(group: Group) -> Iterator[str]:
    """Warnings about runs that should differ only in their seed."""
    without_config = [str(run.folder) for run in group.runs if run.config is None]
    if without_config:
        yield (
            f"{group.label}: no config in {_joined(without_config)} (expected "
            "<timestamp>/vis_data/config.py); whether more differs than initialisation and seed is "
            "not known"
        )
    for run in group.runs:
        differing = _differences(group.values, run.values)
        if differing:
            yield (
                f"{group.label}: {run.folder} differs from the first run in more than its seed: "
                f"{_listed(differing)}"
            )
        if unfinished := _unfinished(run):
            yield f"{group.label}: {run.folder} {unfinished}"
    lengths = sorted({run.iterations for run in group.runs if run.iterations})
    if len(lengths) > 1:
        yield (
            f"{group.label}: its runs were trained for different numbers of iterations by their "
            f"logs: {_joined(lengths)}"
        )
    repeated = [seed for seed, count in _seeds(group).items() if count > 1]
    if repeated:
        yield (
            f"{group.label}: several runs have the seed {_joined(repeated)}; their deviation does "
            "not show the variation over seeds"
        )


def _warnings_of_curve(group: Group) -> Iterator[str]:
    partial = mean_curve(group, []).partial_iterations
    if partial:
        more = " …" if len(partial) > MAX_LISTED else ""
        yield (
            f"{group.label}: {len(partial)} iterations were validated in a part of the runs only "
            f"and are left out of the curve: {_joined(partial[:MAX_LISTED])}{more}"
        )


def _warnings_of_pair(group: Group, twin: Group, differing: list[Difference]) -> Iterator[str]:
    pair = f"{group.label} and {twin.label}"
    if differing:
        yield f"{pair} differ in more than initialisation: {_listed(differing)}"
    if any(d.key.startswith(("val_", "test_")) and d.key.endswith("ann_file") for d in differing):
        yield f"{pair} are evaluated on different files, so their figures cannot be compared"
    lengths = [sorted({run.iterations for run in g.runs if run.iterations}) for g in (group, twin)]
    if all(lengths) and lengths[0] != lengths[1]:
        yield (
            f"{pair} were trained for different numbers of iterations by their logs: "
            f"{_joined(lengths[0])} and {_joined(lengths[1])}"
        )
    sources = [{run.figures_of for run in g.runs} for g in (group, twin)]
    if sources[0] | sources[1] == {"validation", "test"}:
        yield f"{pair}: some figures are from validations, some from tests"
    seeds, others = _seeds(group), _seeds(twin)
    if seeds and others and seeds.keys() != others.keys():
        yield (
            f"{pair} have different seeds, {_joined(sorted(seeds))} and {_joined(sorted(others))}: "
            "compare runs with the same seeds"
        )


def _warnings_without_twin(figures: Figures) -> Iterator[str]:
    for group in figures.groups:
        if group.name != figures.reference and figures.twin(group) is None:
            where = "" if group.shots is None else f" on {group.shots} images per class"
            yield f"{group.label}: there is no run of {figures.reference}{where} to compare it with"


def _unfinished(run: LoggedRun) -> str:
    """Describe a run that ended early; '' if it did not, or its config counts no iterations."""
    config: Mapping[str, Any] = run.config or {}
    last = (config.get("train_cfg") or {}).get("max_iters")
    interval = ((config.get("default_hooks") or {}).get("logger") or {}).get("interval", 10)
    if not run.iterations or not last or run.iterations + interval > last:
        return ""
    return f"is unfinished: iteration {run.iterations:,} of {last:,} by its log"


def _seeds(group: Group) -> Counter[str]:
    """Count the runs of a group by seed; unknown seeds are left out."""
    return Counter(run.seed for run in group.runs if "unknown" not in run.seed)


def _differences(
    first: Mapping[str, Any] | None, second: Mapping[str, Any] | None
) -> list[Difference]:
    return [] if first is None or second is None else differences(first, second)


def _listed(differing: list[Difference]) -> str:
    listed = [f"{d.key} {shortened(d.reference)} → {shortened(d.other)}" for d in differing]
    more = f"; and {len(listed) - MAX_LISTED} more" if len(listed) > MAX_LISTED else ""
    return "; ".join(listed[:MAX_LISTED]) + more


def _joined(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))
