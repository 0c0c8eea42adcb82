"""Hand planned jobs to Slurm's queue, one ``sbatch`` each, and leave the login node."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .config_tree import tools_folder
from .jobs import Job
from .launcher import Launcher
from .running import log_file
from .state import finished_line, is_finished

QUEUED = "PENDING,CONFIGURING,RUNNING,SUSPENDED"


@dataclass(frozen=True)
class Submission:
    """How jobs are handed to Slurm.

    Each is a batch job of its own, seeds too, with ``afterok`` on those whose files it reads. Job
    arrays for the seeds would need ``aftercorr`` between arrays of the same indices, which finished
    seeds and steps that all seeds share leave without a partner.

    Attributes:
        call: The command that runs one of the jobs when ``--job NAME`` is put behind it.
        time: Limit of each job, as ``sbatch --time`` takes it; '' for that of the partition. A
            job that meets it is queued again and goes on.
        options: More options of ``sbatch``.
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

    A job that an earlier call has queued, for this or another table, is waited for and not queued
    twice. When a job fails, Slurm removes those that wait for it; the same call queues them again.

    Args:
        jobs: In an order in which they could run one after the other.
        launcher: Partition and GPUs per node.
        root: The work directory.
        submission: See there.
        dry_run: Print a script for a shell and submit nothing; the queue is not asked.

    Raises:
        ValueError: If there is no Slurm, or a result of other settings is there.
        RuntimeError: If Slurm refuses a job.
    """
    queued = {} if dry_run else _queued_jobs()
    if dry_run:
        print(shlex.join(["mkdir", "-p", str(log_file(root, "x").parent)]))
    else:
        log_file(root, "x").parent.mkdir(parents=True, exist_ok=True)
    ids: dict[str, str] = {}
    for number, job in enumerate(jobs, 1):
        after = [ids[path] for path in job.reads if path in ids]
        name = job_name(job, root)
        if not after and is_finished(job):
            print(finished_line(job))
            continue
        if name in queued:
            ids[job.makes] = queued[name]
            print(f"# {job.name} is in the queue: {queued[name]}")
            continue
        head, tail = sbatch_command(job, launcher, root, submission)
        waits = [f"--dependency=afterok:{':'.join(after)}"] if after else []
        if dry_run:
            ids[job.makes] = f"$job{number}"
            line = " ".join([shlex.join(head), *waits, shlex.join(tail)])
            print(f"job{number}=$({line})")
            continue
        ids[job.makes] = _submitted(job, [*head, *waits, *tail])
        print(f"# {job.name} is submitted: {' '.join([ids[job.makes], *waits])}", flush=True)


def job_name(job: Job, root: str) -> str:
    """Name of a job in the queue; the same for the same job of the same work directory alone."""
    digest = hashlib.sha256(str(Path(root).absolute()).encode()).hexdigest()[:8]
    return f"{job.name}@{digest}"


def sbatch_command(
    job: Job, launcher: Launcher, root: str, submission: Submission
) -> tuple[list[str], list[str]]:
    """The command that submits a job, in two parts: the dependency goes in between."""
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
    """Names of the user's jobs in the queue → their IDs."""
    if shutil.which("sbatch") is None:
        raise ValueError(
            "--submit: there is no sbatch on this machine; expected Slurm's commands. --dry-run "
            "prints a script for a machine that has them"
        )
    command = ["squeue", "--noheader", f"--user={os.getuid()}", f"--states={QUEUED}"]
    done = subprocess.run([*command, "--format=%A %j"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"squeue ended with code {done.returncode}: {done.stderr.strip()}")
    lines = (line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip())
    return {name: identifier for identifier, name in lines}


def _submitted(job: Job, command: Sequence[str]) -> str:
    """Submit a job; return its ID."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"{job.name}: sbatch ended with code {done.returncode}: {done.stderr.strip()}. The "
            "jobs before it are in the queue; the same call goes on from here"
        )
    return done.stdout.strip().split(";")[0]  # behind it, the cluster's name
