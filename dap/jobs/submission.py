"""Submit planned jobs to Slurm, each by one ``sbatch``."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .jobs import Job
from .launcher import Launcher
from .running import log_file
from .shipped import tools_folder
from .state import finished_line, is_finished

QUEUED = "PENDING,CONFIGURING,RUNNING,SUSPENDED"


@dataclass(frozen=True)
class Submission:
    """How jobs are submitted to Slurm.

    Each job becomes a batch job, one per seed, with ``afterok`` on the jobs whose files it reads.
    Job arrays over seeds are not used: they need ``aftercorr`` between arrays with the same
    indices, but steps that all seeds share, and finished seeds, have no such partner.

    Attributes:
        call: Command that runs one job when ``--job NAME`` is appended.
        time: Time limit of each job for ``sbatch --time``; '' for that of the partition. A job that
            reaches it is queued again and resumed.
        options: Further options of ``sbatch``.
    """

    call: tuple[str, ...]
    time: str = ""
    options: tuple[str, ...] = ()


def submit(
    jobs: Sequence[Job],
    launcher: Launcher,
    root: str,
    submission: Submission,
    dry_run: bool = False,
) -> None:
    """Submit all jobs that are not finished, each after those whose files it reads.

    A job that an earlier call has queued, for this or another table, is not queued twice; others
    wait for it. If a job fails, Slurm removes those that wait for it; the same call queues them
    again.

    Args:
        jobs: Jobs in an order in which they could run one after the other.
        launcher: Partition and GPUs per node.
        root: The work directory.
        submission: Command, time limit and options of the batch jobs.
        dry_run: Print a shell script instead of submitting. The queue is not read.

    Raises:
        ValueError: If Slurm is not installed, or there is a result with other settings.
        RuntimeError: If Slurm rejects a job.
    """
    queued = {} if dry_run else _queued_jobs()
    if dry_run:
        print(shlex.join(["mkdir", "-p", str(log_file(root, "x").parent)]))
    else:
        log_file(root, "x").parent.mkdir(parents=True, exist_ok=True)
    ids: dict[str, str] = {}
    for number, job in enumerate(jobs, 1):
        dependencies = [ids[path] for path in job.reads if path in ids]
        name = job_name(job, root)
        if not dependencies and is_finished(job):
            print(finished_line(job))
            continue
        if name in queued:
            ids[job.makes] = queued[name]
            print(f"# {job.name} is in the queue: {queued[name]}")
            continue
        head, tail = sbatch_command(job, launcher, root, submission)
        waits = [f"--dependency=afterok:{':'.join(dependencies)}"] if dependencies else []
        if dry_run:
            ids[job.makes] = f"$job{number}"
            line = " ".join([shlex.join(head), *waits, shlex.join(tail)])
            print(f"job{number}=$({line})")
            continue
        ids[job.makes] = _submitted(job, [*head, *waits, *tail])
        print(f"# {job.name} is submitted: {' '.join([ids[job.makes], *waits])}", flush=True)


def job_name(job: Job, root: str) -> str:
    """Name of a job in the queue. It identifies the job and its work directory."""
    digest = hashlib.sha256(str(Path(root).absolute()).encode()).hexdigest()[:8]
    return f"{job.name}@{digest}"


def sbatch_command(
    job: Job, launcher: Launcher, root: str, submission: Submission
) -> tuple[list[str], list[str]]:
    """Build the command that submits a job, in two parts; dependencies go between them."""
    per_node = min(job.gpus, launcher.gpus_per_node)
    tasks = [f"--gres=gpu:{per_node}", f"--ntasks={job.gpus}", f"--ntasks-per-node={per_node}"]
    head = [
        *("sbatch", "--parsable", f"--job-name={job_name(job, root)}"),
        *(f"--partition={launcher.partition}", *(tasks if job.gpus else ["--ntasks=1"])),
        f"--cpus-per-task={os.environ.get('CPUS_PER_TASK', '5')}",
        *([f"--time={submission.time}"] if submission.time else []),
        *("--requeue", "--signal=B:USR1@120", "--kill-on-invalid-dep=yes"),
        *("--open-mode=append", f"--output={log_file(root, job.name)}"),
    ]
    script = str(tools_folder() / "slurm_job.sh")
    return head, [*submission.options, script, *submission.call, "--job", job.name]


def _queued_jobs() -> dict[str, str]:
    """Read the user's jobs in the queue: name → ID.

    A job is left out if it waits for one that has failed, and so is not in the queue, or for one
    that is left out: Slurm is about to remove it.
    """
    if shutil.which("sbatch") is None:
        raise ValueError(
            "--submit: there is no sbatch on this machine; expected Slurm's commands. --dry-run "
            "prints a script for a machine that has Slurm"
        )
    command = ["squeue", "--noheader", f"--user={os.getuid()}", f"--states={QUEUED}"]
    process = subprocess.run([*command, "--format=%A|%E|%j"], capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"squeue ended with code {process.returncode}: {process.stderr.strip()}")
    rows = [line.strip().split("|", 2) for line in process.stdout.splitlines() if line.strip()]
    waits = {identifier: re.findall(r":(\d+)", others) for identifier, others, _ in rows}
    while doomed := [name for name, others in waits.items() if not waits.keys() >= {*others}]:
        for name in doomed:
            del waits[name]
    return {name: identifier for identifier, _, name in rows if identifier in waits}


def _submitted(job: Job, command: Sequence[str]) -> str:
    """Submit a job; return its ID."""
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(
            f"{job.name}: sbatch ended with code {process.returncode}: {process.stderr.strip()}. "
            "The jobs before it are in the queue; the same call continues from here"
        )
    return process.stdout.strip().split(";")[0]  # the cluster's name may follow
