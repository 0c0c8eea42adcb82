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
    "one run is no evidence: the paper prints one and the same run as AP50 79.93 (Table 2) and as "
    "79.52 (Table 9). Take three seeds"
)
NAMED = 6  # differences that a warning names


def find_warnings(figures: Figures) -> list[str]:
    """All warnings about a comparison, as sentences."""
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
        warnings += _without_twin(figures)
    return warnings


def config_differences(figures: Figures) -> list[tuple[Group, Group, list[Difference]]]:
    """Each group with its twin and the differences of their configs beyond initialisation.

    There are none where one has no config, which `find_warnings` says.
    """
    compared = []
    for group in figures.groups:
        twin = figures.twin(group)
        if twin is not None:
            both = _differences(twin.values, group.values)
            compared.append((group, twin, [d for d in both if not is_initialisation(d.key)]))
    return compared


def _warnings_within(group: Group) -> Iterator[str]:
    """Warnings about runs that should differ only in their seed."""
    without = [str(run.folder) for run in group.runs if run.config is None]
    if without:
        yield (
            f"{group.label}: no config in {_joined(without)} (expected "
            "<timestamp>/vis_data/config.py); whether more differs than initialisation and seed is "
            "not known"
        )
    for run in group.runs:
        differing = _differences(group.values, run.values)
        if differing:
            yield (
                f"{group.label}: {run.folder} differs from the first run in more than its seed: "
                f"{_named(differing)}"
            )
        if unfinished := _unfinished(run):
            yield f"{group.label}: {run.folder} {unfinished}"
    lengths = sorted({run.iterations for run in group.runs if run.iterations})
    if len(lengths) > 1:
        yield (
            f"{group.label}: its runs were trained for different numbers of iterations by their "
            f"logs: {_joined(lengths)}"
        )
    twice = [seed for seed, count in _seeds(group).items() if count > 1]
    if twice:
        yield (
            f"{group.label}: several runs have the seed {_joined(twice)}; the deviation says less "
            "than that of runs with different seeds"
        )


def _warnings_of_curve(group: Group) -> Iterator[str]:
    left_out = mean_curve(group, []).left_out
    if left_out:
        shown = ", ".join(map(str, left_out[:NAMED])) + (" …" if len(left_out) > NAMED else "")
        yield (
            f"{group.label}: {len(left_out)} iterations were validated in a part of the runs only "
            f"and are left out of the curve: {shown}"
        )


def _warnings_of_pair(group: Group, twin: Group, differing: list[Difference]) -> Iterator[str]:
    pair = f"{group.label} and {twin.label}"
    if differing:
        yield f"{pair} differ in more than initialisation: {_named(differing)}"
    files = [
        d for d in differing if d.key.startswith(("val_", "test_")) and d.key.endswith("ann_file")
    ]
    if files:
        yield f"{pair} are evaluated on different files, so their figures do not compare"
    lengths = [sorted({run.iterations for run in g.runs if run.iterations}) for g in (group, twin)]
    if all(lengths) and lengths[0] != lengths[1]:
        yield (
            f"{pair} were trained for different numbers of iterations by their logs: "
            f"{_joined(lengths[0])} and {_joined(lengths[1])}"
        )
    sources = [{run.figures_of for run in g.runs} for g in (group, twin)]
    if sources[0] | sources[1] == {"validation", "test"}:
        yield f"{pair}: some figures are of validations, some of tests"
    seeds, others = _seeds(group), _seeds(twin)
    if seeds and others and seeds.keys() != others.keys():
        yield (
            f"{pair} have different seeds, {_joined(sorted(seeds))} and {_joined(sorted(others))}: "
            "runs of equal seeds compare best"
        )


def _without_twin(figures: Figures) -> Iterator[str]:
    for group in figures.groups:
        if group.name != figures.reference and figures.twin(group) is None:
            where = "" if group.shots is None else f" on {group.shots} images per class"
            yield f"{group.label}: there is no run of {figures.reference}{where} to compare it with"


def _unfinished(run: LoggedRun) -> str:
    """Say that a run ended early; '' if it did not, or its config does not count iterations."""
    config: Mapping[str, Any] = run.config or {}
    last = (config.get("train_cfg") or {}).get("max_iters")
    interval = ((config.get("default_hooks") or {}).get("logger") or {}).get("interval", 10)
    if not run.iterations or not last or run.iterations + interval > last:
        return ""
    return f"is unfinished: iteration {run.iterations:,} of {last:,} by its log"


def _seeds(group: Group) -> Counter[str]:
    """The known seeds of a group."""
    return Counter(run.seed for run in group.runs if "unknown" not in run.seed)


def _differences(
    first: Mapping[str, Any] | None, second: Mapping[str, Any] | None
) -> list[Difference]:
    return [] if first is None or second is None else differences(first, second)


def _named(differing: list[Difference]) -> str:
    named = [f"{d.key} {shortened(d.reference)} → {shortened(d.other)}" for d in differing[:NAMED]]
    more = f"; and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
    return "; ".join(named) + more


def _joined(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))
