"""Carry out planned jobs: one after the other, or several at a time."""

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
from .records import begin_record, end_record
from .state import finished_line, is_begun, is_finished, latest_result


def run_job(
    job: Job,
    root: str | Path,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a job unless it is finished; go on with an unfinished training.

    Two calls at once, also of two processes, wait for each other.

    Args:
        job: What to run.
        root: The work directory; a lock per job is kept in it.
        log: File for what the command prints, added at its end; the terminal if None.
        environment: Variables of the command beside those of this process.

    Raises:
        ValueError: If a result of other settings is there.
        RuntimeError: If the command fails, or ends without its result.
    """
    with _exclusive_lock(Path(root) / ".locks" / job.name.replace("/", "_")) as lock:
        if is_finished(job):
            print(finished_line(job), flush=True)
            return
        resumes = is_begun(job)
        if not resumes:
            begin_record(job)
        command = job.resumed if resumes else job.command
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
                f"{job.name}: its command ended with code {code}; what it wrote stands {where} "
                "and in its work directory. The same call goes on from here"
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
    """Run jobs, several at a time, each after those whose files it reads.

    A job takes as many of the places as it has GPUs, at least one and at most all. One that is
    ready and for which there are places starts, even if an earlier one still waits for more. After
    a failure no further job starts, and those that run are waited for.

    Args:
        jobs: In an order in which they could run one after the other.
        root: The work directory.
        processes: Places.
        environment: Variables of all commands beside those of this process.
        gpus: Name of the GPU of each place, for ``CUDA_VISIBLE_DEVICES`` of the jobs that have
            GPUs; none to leave that variable as it is.
        logged: Whether what a job prints goes to its :func:`log_file`; else to the terminal.

    Raises:
        ValueError: If ``processes`` is not positive, or a result of other settings is there;
            nothing was run then.
        RuntimeError: If a command fails: that of the first such job.
    """
    if processes < 1:
        raise ValueError(f"processes: expected 1 or more, found {processes}")
    for job in jobs:
        is_finished(job)  # refuses what is of other settings
    free = list(gpus) or [""] * processes
    waiting, unmade = list(jobs), {job.makes for job in jobs}
    running: dict[Future[None], tuple[Job, list[str]]] = {}
    failures: dict[str, BaseException] = {}

    def start(job: Job, places: Sequence[str]) -> Future[None]:
        names = {"CUDA_VISIBLE_DEVICES": ",".join(places)} if gpus and job.gpus else {}
        log = log_file(root, job.name) if logged else None
        return pool.submit(run_job, job, root, log, {**(environment or {}), **names})

    with ThreadPoolExecutor(processes) as pool:
        while running or (waiting and not failures):
            for job in [] if failures else list(waiting):
                needed = min(max(1, job.gpus), processes)
                if needed <= len(free) and not unmade.intersection(job.reads):
                    waiting.remove(job)
                    places, free = free[:needed], free[needed:]
                    running[start(job, places)] = (job, places)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, places = running.pop(future)
                free += places
                error = future.exception()
                if error is None:
                    unmade.discard(job.makes)
                else:
                    failures[job.name] = error
    for job in jobs:
        if job.name in failures:
            raise failures[job.name]


def log_file(root: str | Path, name: str) -> Path:
    """Where the output of a job goes that does not go to the terminal."""
    return Path(root) / "logs" / f"{name.replace('/', '_')}.log"


def visible_gpus(count: int) -> list[str]:
    """Name so many of the GPUs that this process may use.

    Returns:
        Numbers or UUIDs, as ``CUDA_VISIBLE_DEVICES`` has them, counted from 0 where it is not set.
        None where it allows no GPU at all: processes stay on the CPU.

    Raises:
        ValueError: If there are fewer.
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
    """Wait for the lock on a file; it ends with the last process that holds the file open.

    Where the file system has no locks, a warning says so, and nothing is locked.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        waiting = f"# {lock.name}: waiting for another process that runs it"
        wait_for_lock(file, lock.parent, lambda: print(waiting, flush=True))
        yield file
