"""Run planned jobs, one after the other or several at a time."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dap.locks import wait_for_lock

from .jobs import Job
from .records import begin_record, end_record, is_open
from .state import finished_line, is_begun, is_finished, latest_result, resumed_command


def run_job(
    job: Job,
    root: str | Path,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a job unless it is finished; resume an unfinished training.

    A lock lets simultaneous calls, also of other processes, run the job one after the other.

    Args:
        job: The job.
        root: The work directory; it contains the locks.
        log: File to append the output of the command to; None for the terminal.
        environment: Additional environment variables of the command.

    Raises:
        ValueError: If there is a result with other settings, or an unfinished training lacks its
            last checkpoint.
        RuntimeError: If the command fails, or ends without a result.
    """
    with _exclusive_lock(Path(root) / ".locks" / job.name.replace("/", "_")) as lock:
        if is_finished(job):
            if job.kind == "train" and is_open(job):  # killed after its last checkpoint
                end_record(job, latest_result(job))
            print(finished_line(job), flush=True)
            return
        resumes = is_begun(job)
        if not resumes:
            begin_record(job)
        command = resumed_command(job) if resumes else job.command
        print(shlex.join(command), flush=True)
        program = [sys.executable if part == "python" else part for part in command]
        variables = {**os.environ, "PYTHON": sys.executable, **(environment or {})}
        with _opened(log) as output:
            # The child inherits the lock, so the lock lasts if only this process dies.
            code = subprocess.run(
                program, env=variables, stdout=output, stderr=output, pass_fds=[lock.fileno()]
            ).returncode
        if code:
            where = "above" if log is None else f"in {log.absolute()}"
            raise RuntimeError(
                f"{job.name}: its command ended with code {code}; its output is {where} and in "
                "its work directory. The same call continues from here"
            )
        end_record(job, latest_result(job))
        if not is_finished(job):
            raise RuntimeError(f"{job.name}: its command ended without {job.makes}")


def run_jobs(
    jobs: Sequence[Job],
    root: str | Path,
    processes: int,
    environment: Mapping[str, str] | None = None,
    gpus: Sequence[str] = (),
    logged: bool = True,
) -> None:
    """Run several jobs at a time, each after those whose files it reads.

    A job takes as many slots as it has GPUs, at least one and at most all. A job that is ready
    starts as soon as there are slots for it, even if an earlier job still waits for more. After a
    failure no further job starts; running jobs are waited for.

    Args:
        jobs: Jobs in an order in which they could run one after the other.
        root: The work directory.
        processes: Number of slots.
        environment: Additional environment variables of all commands.
        gpus: GPU of each slot, for ``CUDA_VISIBLE_DEVICES`` of jobs that have GPUs. If empty, that
            variable is not changed.
        logged: Whether the output of a job goes to its :func:`log_file` or to the terminal.

    Raises:
        ValueError: If ``processes`` is not positive, or there is a result with other settings.
            Nothing has been run then.
        RuntimeError: If a command fails; the message is about the first such job in ``jobs``.
    """
    if processes < 1:
        raise ValueError(f"processes: expected 1 or more, found {processes}")
    for job in jobs:
        is_finished(job)  # rejects results with other settings
    free = list(gpus) or [""] * processes
    waiting, missing = list(jobs), {job.makes for job in jobs}
    running: dict[Future[None], tuple[Job, list[str]]] = {}
    failures: dict[str, BaseException] = {}

    def start(job: Job, slots: Sequence[str]) -> Future[None]:
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(slots)} if gpus and job.gpus else {}
        log = log_file(root, job.name) if logged else None
        return pool.submit(run_job, job, root, log, {**(environment or {}), **visible})

    with ThreadPoolExecutor(processes) as pool:
        while running or (waiting and not failures):
            for job in [] if failures else list(waiting):
                needed = min(max(1, job.gpus), processes)
                if needed <= len(free) and not missing.intersection(job.reads):
                    waiting.remove(job)
                    slots, free = free[:needed], free[needed:]
                    running[start(job, slots)] = (job, slots)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, slots = running.pop(future)
                free += slots
                error = future.exception()
                if error is None:
                    missing.discard(job.makes)
                else:
                    failures[job.name] = error
    for job in jobs:
        if job.name in failures:
            raise failures[job.name]


def log_file(root: str | Path, name: str) -> Path:
    """File for the output of a job that is not printed to the terminal."""
    return Path(root) / "logs" / f"{name.replace('/', '_')}.log"


def visible_gpus(count: int) -> list[str]:
    """List ``count`` of the GPUs that this process may use.

    Returns:
        Numbers or UUIDs from ``CUDA_VISIBLE_DEVICES``; 0, 1, … if it is not set. An empty list if
        it allows no GPU, so that processes use the CPU.

    Raises:
        ValueError: If it allows fewer than ``count`` GPUs, but at least one.
    """
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return [str(number) for number in range(count)]
    names = [name.strip() for name in allowed.split(",") if name.strip() not in ("", "-1")]
    if names and len(names) < count:
        raise ValueError(
            f"gpus: expected at most the {len(names)} that CUDA_VISIBLE_DEVICES={allowed} allows, "
            f"found {count}"
        )
    return names[:count]


@contextmanager
def _opened(log: Path | None) -> Iterator[IO[str] | None]:
    if log is None:
        yield None
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        yield file


@contextmanager
def _exclusive_lock(lock: Path) -> Iterator[IO[str]]:
    """Wait for the lock on a file. It is released when the last process closes the file.

    If the file system does not support locks, a warning is printed and nothing is locked.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        waiting = f"# {lock.name}: waiting for another process that runs it"
        wait_for_lock(file, lock.parent, lambda: print(waiting, flush=True))
        yield file
