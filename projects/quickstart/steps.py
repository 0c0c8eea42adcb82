"""Run the steps of the quick start as processes; finished steps are reused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from dap.files import write_bytes
from dap.locks import wait_for_lock

POLL_SECONDS = 0.2
GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL
Listener = Callable[["Step", str], None]  # called with each line that a step prints


class Step(NamedTuple):
    """One command of the chain, run in the work directory.

    Attributes:
        name: Name for ``--steps`` and for file names.
        title: Description that is printed.
        command: Program and arguments.
        output: Folder that the command writes.
        resumable: Whether the command can continue from the content of ``output``. If not, the
            folder is deleted before the command starts.
        threads: Number of torch threads. It is fixed because the rounding of sums depends on it.
    """

    name: str
    title: str
    command: tuple[str, ...]
    output: str
    resumable: bool = False
    threads: int = 1


class Steps:
    """Run steps in a work directory.

    For each step, ``steps/<name>.log`` has the output of its last run, and ``steps/<name>.json``
    has its command and, once it is finished, its duration. The log file is the standard output of
    the command and of all its child processes. It is locked, and the lock is held as long as one of
    these processes is alive, even if this program was killed. The next run ends such processes
    before it starts the step again.

    Args:
        work_dir: Folder in which commands run.
        version: Version of the code; results of another version are not reused.
    """

    def __init__(self, work_dir: Path, version: str) -> None:
        self.work_dir, self.version = work_dir, version
        self.folder = work_dir / "steps"
        self.folder.mkdir(parents=True, exist_ok=True)

    def seconds_of_finished(self, step: Step) -> float | None:
        """Return the duration of a step; None if it is unfinished or its command has changed."""
        record = self._record(step)
        return record.get("seconds") if self._is_same(step, record) else None

    def forget(self, name: str) -> None:
        """Mark a step as unfinished, so that it is run again from the start."""
        (self.folder / f"{name}.json").unlink(missing_ok=True)

    def run(self, steps: Sequence[Step], listener: Listener) -> None:
        """Run steps at the same time. If one fails or this process is interrupted, end all of them.

        Args:
            steps: Steps that do not depend on each other.
            listener: Called with each line that a step prints.

        Raises:
            RuntimeError: If a command fails; the message has the end of its log.
        """
        running: dict[str, _Process] = {}
        try:
            for step in steps:
                running[step.name] = self._start(step)
            while running:
                time.sleep(POLL_SECONDS)
                for step in [step for step in steps if step.name in running]:
                    process = running[step.name]
                    code = process.popen.poll()  # polled first, so that no last lines are missed
                    for line in process.new_lines():
                        listener(step, line)
                    if code is not None:
                        self._finish(step, running.pop(step.name), code)
        finally:
            for process in running.values():
                process.end()

    def _start(self, step: Step) -> _Process:
        log = self.folder / f"{step.name}.log"
        record = self._record(step)
        stream = self._locked_log(log, record)
        with stream:
            can_resume = step.resumable and self._is_same(step, record)
            if not can_resume:
                shutil.rmtree(self.work_dir / step.output, ignore_errors=True)
            self._write(step, {})
            stream.truncate(0)
            popen = subprocess.Popen(
                step.command,
                cwd=self.work_dir,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": str(step.threads),
                    "OMP_WAIT_POLICY": "PASSIVE",
                    "PYTHONUNBUFFERED": "1",
                },
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._write(step, {"process_group": popen.pid})
        return _Process(popen, log)

    def _locked_log(self, log: Path, record: Mapping[str, Any]) -> IO[str]:
        """Open and lock a log; end processes of an earlier run that still hold its lock."""

        def end_earlier_call() -> None:
            print(f"    ending what an earlier call left running ({log.stem})", flush=True)
            if group := record.get("process_group"):  # one of its processes holds the lock
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)

        stream = open(log, "a", encoding="utf-8")  # noqa: SIM115  (passed to the command)
        wait_for_lock(stream, log.parent, end_earlier_call)
        return stream

    def _finish(self, step: Step, process: _Process, code: int) -> None:
        if code:
            log = self.folder / f"{step.name}.log"
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            raise RuntimeError(
                "\n".join(lines[-25:]) + f"\nstep {step.name} ended with code {code}; its log is "
                f"{log}. Run the same command again to continue"
            )
        self._write(step, {"seconds": round(time.monotonic() - process.started, 1)})

    def _record(self, step: Step) -> dict[str, Any]:
        path = self.folder / f"{step.name}.json"
        record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return record

    def _is_same(self, step: Step, record: Mapping[str, Any]) -> bool:
        return record.get("command") == [*step.command] and record.get("version") == self.version

    def _write(self, step: Step, values: Mapping[str, Any]) -> None:
        record = {"command": step.command, "version": self.version, **values}
        write_bytes(self.folder / f"{step.name}.json", json.dumps(record).encode())


class _Process:
    """A running command, and the position up to which its log has been read."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen, self.log = popen, log
        self.started = time.monotonic()
        self._position, self._rest = 0, b""

    def new_lines(self) -> list[str]:
        """Return the complete lines written since the last call."""
        with open(self.log, "rb") as file:
            file.seek(self._position)
            content = file.read()
        self._position += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def end(self) -> None:
        """End the command and all processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


def python(*arguments: object) -> tuple[str, ...]:
    """Return a command that runs this Python interpreter without warnings."""
    return (sys.executable, "-W", "ignore", *map(str, arguments))
