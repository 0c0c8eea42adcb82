"""Run the jobs of a table of the paper, skip finished ones, and write the table."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Sequence
from pathlib import Path

from dap.comparison import read_curve
from dap.files import whole_file
from dap.jobs.jobs import Job
from dap.jobs.running import run_job, run_jobs, visible_gpus
from dap.jobs.state import (
    finished_line,
    is_begun,
    is_finished,
    missing_inputs,
    resumed_command,
)
from dap.jobs.submission import Submission, submit

from .catalogue import Experiment, Row
from .config_tree import ConfigTree
from .cost import describe_total, gpu_hours
from .paper import EXPERIMENTS
from .plan import Plan
from .results import find_problems, table


def find_experiment(name: str) -> Experiment:
    """Find a table or figure by name.

    Raises:
        ValueError: If there is no experiment of this name.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}; there are list, {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def list_experiments(configs: ConfigTree) -> str:
    """List all experiments as Markdown, with the cost of all jobs they need, in GPU hours."""
    lines = [
        "| name | what | rows | GPU hours, of them reported by the paper |",
        "|---|---|---|---|",
    ]
    for experiment in EXPERIMENTS.values():
        plan = Plan(configs)
        plan.add(experiment.rows)
        costs = [gpu_hours(job) for job in plan.jobs.values()]
        reported = sum(cost.hours or 0 for cost in costs if cost.reported)
        total = sum(cost.hours or 0 for cost in costs)
        rows = len(experiment.rows)
        lines.append(
            f"| {experiment.name} | {experiment.title} | {rows} | {total:.0f}, {reported:.0f} |"
        )
    return "\n".join(lines)


def reproduce(
    experiment: Experiment,
    plan: Plan,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    dry_run: bool = False,
    gpus: int | None = None,
    submission: Submission | None = None,
) -> str:
    """Run the jobs of a table: boxes → pre-train → extract → fine-tune → test.

    Finished jobs are skipped, and unfinished trainings resumed, if their settings are the same.
    Simultaneous calls that need the same job wait for each other. Independent jobs run at the same
    time if there are GPUs for them.

    Args:
        experiment: The table.
        plan: An empty plan: configs, GPUs, work directory.
        only: Words; rows that have all of them in their names are run.
        seeds: Seeds of fine-tunings and draws; empty for one run with the seeds of the configs.
        dry_run: Print the commands and run nothing.
        gpus: Number of GPUs for all jobs together; None for those of one job.
        submission: How to submit the jobs to Slurm; None to run them here.

    Returns:
        The rows as Markdown; the whole table is in ``<work directory>/<name>.md``. Empty if the
        jobs were only printed or submitted.

    Raises:
        ValueError: If an argument does not fit, or a folder has a result with other settings.
            Nothing has been run then.
        FileNotFoundError: If data is missing. Nothing has been run then.
        RuntimeError: If a command fails.
    """
    rows, chosen, jobs = _planned(experiment, plan, only, seeds)
    missing = missing_inputs(jobs)
    print(f"# {experiment.name}: {len(jobs)} steps, {describe_total(jobs)}")
    if dry_run:
        if submission is None:
            for job in jobs:
                print(_described(job))
        else:
            submit(jobs, plan.launcher, plan.root, submission, dry_run=True)
        print("".join(f"# missing: {path}\n" for path in missing), end="")
        return ""
    for job in jobs:
        is_finished(job)  # rejects results with other settings
    if missing:
        raise FileNotFoundError(
            f"{experiment.name} reads files that do not exist: {', '.join(missing)}. Put or link "
            "the data there (paths are relative to the current folder); --dry-run shows all steps"
        )
    if submission is not None:
        submit(jobs, plan.launcher, plan.root, submission)
        print("# the same call with --report instead of --submit writes the table so far")
        return ""
    slots = gpus or plan.launcher.gpus
    run_jobs(
        jobs,
        plan.root,
        slots,
        gpus=visible_gpus(slots) if plan.launcher.kind == "pytorch" else (),
        logged=slots > 1,
    )
    return report(experiment, rows, plan, chosen)


def run_one(
    experiment: Experiment,
    plan: Plan,
    name: str,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> None:
    """Run one of the jobs of :func:`reproduce`, unless it is finished.

    Args:
        experiment: See :func:`reproduce`.
        plan: See :func:`reproduce`.
        name: Name of the job, as :func:`reproduce` prints it.
        only: See :func:`reproduce`.
        seeds: See :func:`reproduce`.

    Raises:
        ValueError: If there is no job of this name, or it has a result with other settings.
        FileNotFoundError: If a file that it reads is missing, such as one that another job makes.
        RuntimeError: If its command fails.
    """
    jobs = {job.name: job for job in _planned(experiment, plan, only, seeds)[2]}
    if name not in jobs:
        raise ValueError(f"--job: expected one of {', '.join(jobs)}, found {name!r}")
    missing = [path for path in jobs[name].inputs if not Path(path).exists()]
    if missing:
        raise FileNotFoundError(
            f"{name} reads files that do not exist: {', '.join(missing)}. Run the jobs that make "
            "them first, or put the data there"
        )
    run_job(jobs[name], plan.root)


def _planned(
    experiment: Experiment, plan: Plan, only: Sequence[str], seeds: Sequence[int]
) -> tuple[tuple[Row, ...], tuple[int | None, ...], list[Job]]:
    """Select rows and plan their jobs; return rows, seeds and jobs."""
    if plan.iterations and experiment.name not in ("figure3", "figure4"):
        raise ValueError(
            f"iterations: {experiment.name} has its lengths from the paper; expected with figure3 "
            "and figure4 alone"
        )
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: expected each once, found {list(seeds)}")
    rows = experiment.select(tuple(only))
    chosen = tuple(seeds) or (None,)
    plan.add(rows, chosen)
    return rows, chosen, list(plan.jobs.values())


def report(
    experiment: Experiment, rows: Sequence[Row], plan: Plan, seeds: Sequence[int | None]
) -> str:
    """Write the whole table with the figures known so far, and return some of its rows."""
    root = Path(plan.root)
    root.mkdir(parents=True, exist_ok=True)
    problems = find_problems(experiment.rows, plan, seeds)
    for problem in problems.values():
        print(f"# left out of the table: {problem}")
    text = table(experiment.rows, plan, seeds, problems)
    if text:
        with whole_file(root / f"{experiment.name}.md") as file:
            file.write(text + "\n")
        print(f"# all rows of {experiment.name} so far: {root / experiment.name}.md")
    if experiment.name == "figure5":
        _write_curves(root / "figure5.csv", experiment.rows, plan, seeds)
    return table(rows, plan, seeds, problems)


def _described(job: Job) -> str:
    """Line that a dry run prints for a job: a command for a shell, or a comment."""
    try:
        if is_finished(job):
            return finished_line(job)
        return shlex.join(resumed_command(job) if is_begun(job) else job.command)
    except ValueError as error:
        return f"# rejected: {error}"


def _write_curves(path: Path, rows: Sequence[Row], plan: Plan, seeds: Sequence[int | None]) -> None:
    """Write the learning curves known so far: row, seed, iteration, metric, value in percent."""
    with whole_file(path) as file:
        writer = csv.writer(file)
        writer.writerow(["row", "seed", "iteration", "metric", "percent"])
        for row in rows:
            for cell in row.cells:
                for seed in seeds:
                    folder = Path(plan.result(cell.run, seed)).parent
                    try:
                        points = read_curve(folder, {"figure": str(cell.metric)})
                    except ValueError as error:  # not validated yet
                        print(f"# {row.name}: no curve, {error}")
                        continue
                    for point in points:
                        key = (row.name, seed, int(point["iteration"]))
                        writer.writerow([*key, cell.column, f"{point['figure']:.4f}"])
