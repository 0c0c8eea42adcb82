"""Locks: held by real processes, lost in races, and absent from file systems."""

import errno
import fcntl
import logging
import multiprocessing
import os
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest
from mmengine.logging import MMLogger

from dap.files import locked
from dap.jobs.jobs import Job
from dap.jobs.running import run_job

FORK = multiprocessing.get_context("fork")


def hold(path, ready, done):
    with locked(path):
        ready.set()
        done.wait(60)


@contextmanager
def holder(path):
    """Another process that has the lock; what is yielded ends it."""
    ready, done = FORK.Event(), FORK.Event()
    process = FORK.Process(target=hold, args=(path, ready, done))
    process.start()
    assert ready.wait(60)

    def release():
        done.set()
        process.join(60)
        assert process.exitcode == 0

    try:
        yield process, release
    finally:
        release()


def refusal(path, error=RuntimeError):
    """What locking is refused with."""
    with pytest.raises(error) as caught, locked(path):
        pytest.fail("this process has the lock, too")
    return str(caught.value)


def before_locking(monkeypatch, event):
    """Let something happen once, after the lock file was opened and before it is locked."""
    lock = fcntl.lockf
    events = [event]

    def locking(*args):
        if events:
            events.pop()()
        return lock(*args)

    monkeypatch.setattr(fcntl, "lockf", locking)


def test_held_lock_names_its_process(tmp_path):
    path = tmp_path / "new" / ".lock"
    with holder(path) as (process, _):
        assert f"new is being written by another process (process {process.pid} on " in refusal(
            path
        )
        assert path.read_text().startswith(f"process {process.pid} on ")
    with locked(path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert not path.exists()


def test_file_that_its_holder_removes_before_it_is_locked(tmp_path, monkeypatch):
    """The lock of the removed file is worth nothing: the file of that name must be there."""
    path = tmp_path / ".lock"
    with holder(path) as (_, release):
        before_locking(monkeypatch, release)
        with locked(path):
            assert path.read_text().startswith(f"process {os.getpid()} on ")


def test_file_that_is_removed_and_made_by_a_third_process(tmp_path, monkeypatch):
    path = tmp_path / ".lock"
    with ExitStack() as stack, holder(path) as (_, release):
        third = []

        def change_holder():
            release()
            third.append(stack.enter_context(holder(path))[0])

        before_locking(monkeypatch, change_holder)
        message = refusal(path)
        assert f"(process {third[0].pid} on " in message


def count_up(path, counter, times):
    for _ in range(times):
        while True:
            try:
                with locked(path):
                    counter.write_text(str(int(counter.read_text()) + 1))
                break
            except RuntimeError:
                time.sleep(0)


def test_many_processes_one_after_the_other(tmp_path):
    """What two at once would count is lost."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [
        FORK.Process(target=count_up, args=(tmp_path / ".lock", counter, 150)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert counter.read_text() == "600"


def refuse(monkeypatch, function, number):
    def refusing(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, function, refusing)


@pytest.fixture
def warnings():
    """The warnings of the current logger."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logger = MMLogger.get_instance("locks", logger_name="locks")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


@pytest.mark.parametrize("number", ["EINVAL", "ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"])
def test_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, warnings, number):
    refuse(monkeypatch, "lockf", getattr(errno, number))
    path = tmp_path / "out" / ".lock"
    with locked(path):
        assert path.exists()
    assert not path.exists()
    (warning,) = (record.getMessage() for record in warnings)
    assert warning.startswith(f"{tmp_path / 'out'}: its file system has no locks (")
    assert "Two runs that write to this folder at the same time" in warning


def test_other_errors_of_locking_are_errors(tmp_path, monkeypatch, warnings):
    refuse(monkeypatch, "lockf", errno.EIO)
    message = refusal(tmp_path / "out" / ".lock", OSError)
    assert "out cannot be written (Input/output error)" in message
    assert warnings == []


def test_file_system_that_numbers_a_file_anew_each_time(tmp_path, monkeypatch):
    """The lock still keeps others out, and nothing hangs."""
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)
    path = tmp_path / ".lock"
    with holder(path):
        assert "is being written by another" in refusal(path)
    with locked(path):
        assert path.read_text().startswith(f"process {os.getpid()} on ")


def test_comparing_the_file_with_its_name_keeps_the_lock(tmp_path):
    """POSIX ends a process's locks on a file with the first of its descriptors that is closed."""
    path = tmp_path / ".lock"
    with locked(path):
        child = FORK.Process(target=refusal, args=(path,))
        child.start()
        child.join(60)
    assert child.exitcode == 0


class TestJobs:
    JOB = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"

    def job(self, folder):
        made = str(folder / "made")
        return Job("touch", "files", (sys.executable, "-c", self.JOB, made), made)

    def test_without_locks(self, tmp_path, monkeypatch, warnings):
        refuse(monkeypatch, "flock", errno.ENOLCK)
        run_job(self.job(tmp_path), tmp_path)
        assert (tmp_path / "made").exists()
        (warning,) = (record.getMessage() for record in warnings)
        assert warning.startswith(f"{tmp_path / '.locks'}: its file system has no locks (")

    def test_other_errors(self, tmp_path, monkeypatch):
        refuse(monkeypatch, "flock", errno.EIO)
        with pytest.raises(OSError, match="Input/output error"):
            run_job(self.job(tmp_path), tmp_path)
        assert not (tmp_path / "made").exists()
