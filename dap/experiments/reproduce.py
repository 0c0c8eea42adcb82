"""Run what fills a table of the paper, leave out what is finished, and write the table."""

from __future__ import annotations

import csv
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import print_log

from dap.visualization import read_curve

from .catalogue import Experiment, Row
from .config_tree import ConfigTree
from .cost import gpu_hours, total
from .paper import EXPERIMENTS
from .plan import Job, Plan
from .results import table
from .state import is_begun, is_finished, missing_inputs


def find_experiment(name: str) -> Experiment:
    """Find a table or figure by name.

    Raises:
        ValueError: If there is none of this name.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}; there are list, {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def list_experiments(configs: ConfigTree) -> str:
    """All experiments with the cost of everything that leads to them, in GPU hours."""
    lines = [
        "| name | what | rows | GPU hours, of them reported by the paper |",
        "|---|---|---|---|",
    ]
    for experiment in EXPERIMENTS.values():
        plan = Plan(configs)
        plan.add(experiment.rows)
        costs = [gpu_hours(job) for job in plan.jobs.values()]
        known = sum(hours for hours, reported in costs if reported)
        whole = sum(hours for hours, _ in costs)
        rows = len(experiment.rows)
        lines.append(
            f"| {experiment.name} | {experiment.title} | {rows} | {whole:.0f}, {known:.0f} |"
        )
    return "\n".join(lines)


def reproduce(
    experiment: Experiment,
    plan: Plan,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    dry_run: bool = False,
) -> str:
    """Run the chain of a table: boxes → pre-train → extract → fine-tune → test.

    A finished job is left out, an unfinished training resumed. Both must be of the same settings.

    Args:
        experiment: The table.
        plan: An empty plan: configs, GPUs, work directory.
        only: Words; rows that have all of them in their names are run.
        seeds: Of fine-tuning and draws; none for one run with the configs' own.
        dry_run: Print the commands and run nothing.

    Returns:
        The table as Markdown, also written to ``<work directory>/<name>.md``; empty if dry.

    Raises:
        ValueError: If a folder holds a result of other settings.
        FileNotFoundError: If data is missing; nothing was run then.
        RuntimeError: If a command fails.
    """
    rows = experiment.select(tuple(only))
    chosen = tuple(seeds) or (None,)
    plan.add(rows, chosen)
    jobs = list(plan.jobs.values())
    missing = missing_inputs(jobs)
    print(f"# {experiment.name}: {len(jobs)} steps, about {total(jobs):.0f} GPU hours in all")
    if dry_run:
        for job in jobs:
            print(_described(job))
        print("".join(f"# missing: {path}\n" for path in missing), end="")
        return ""
    if missing:
        raise FileNotFoundError(
            f"{experiment.name} reads files that are not there: {', '.join(missing)}. Put or link "
            "the data there (paths are relative to the current folder); --dry-run shows all steps"
        )
    for job in jobs:
        _run(job)
    return _report(experiment, rows, plan, chosen)


def _described(job: Job) -> str:
    """What a dry run prints of a job: a line that a shell runs, or a remark."""
    if is_finished(job):
        return f"# {job.name} is finished: {job.makes}"
    return shlex.join(job.resumed if is_begun(job) else job.command)


def _run(job: Job) -> None:
    if is_finished(job):
        print(f"# {job.name} is finished: {job.makes}", flush=True)
        return
    command = job.resumed if is_begun(job) else job.command
    print(shlex.join(command), flush=True)
    own = [sys.executable if part == "python" else part for part in command]
    code = subprocess.run(own, env={**os.environ, "PYTHON": sys.executable}).returncode
    if code:
        raise RuntimeError(
            f"{job.name}: its command ended with code {code}; what it wrote stands above and in "
            "its work directory. The same call of reproduce.py goes on from here"
        )
    if not is_finished(job):
        raise RuntimeError(f"{job.name}: its command ended without {job.makes}")


def _report(
    experiment: Experiment, rows: Sequence[Row], plan: Plan, seeds: Sequence[int | None]
) -> str:
    text = table(rows, plan, seeds)
    if text:
        path = Path(plan.root) / f"{experiment.name}.md"
        path.write_text(text + "\n")
        print_log(f"written to {path}", logger=None)
    if experiment.name == "figure5":
        _write_curves(Path(plan.root) / "figure5.csv", rows, plan, seeds)
    return text


def _write_curves(path: Path, rows: Sequence[Row], plan: Plan, seeds: Sequence[int | None]) -> None:
    """Write learning curves as data: row, seed, iteration, figure in percent."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "seed", "iteration", "metric", "percent"])
        for row in rows:
            for cell in row.cells:
                for seed in seeds:
                    folder = Path(plan.result(cell.run, seed)).parent
                    for point in read_curve(folder, {"figure": str(cell.metric)}):
                        seen = (row.name, seed, int(point["iteration"]))
                        writer.writerow([*seen, cell.column, f"{point['figure']:.4f}"])
