"""Jobs of small real commands, run several at a time."""

import fcntl
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from dap.jobs import Job
from dap.jobs.running import run_jobs, visible_gpus

WRITE = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
MEET = """
import pathlib, sys, time
own, other = map(pathlib.Path, sys.argv[1:3])
own.write_text('')
end = time.monotonic() + 60
while not other.exists() and time.monotonic() < end:
    time.sleep(.02)
raise SystemExit(not other.exists())
"""


def files_job(name, code, *arguments, makes, reads=()):
    command = ("python", "-c", code, *map(str, arguments))
    return Job(name, "files", command, str(makes), inputs=reads, reads=reads)


def test_two_jobs_run_at_once(tmp_path):
    """Each waits for the other's file: alone, neither would end."""
    a, b = tmp_path / "a", tmp_path / "b"
    jobs = [files_job("a", MEET, a, b, makes=a), files_job("b", MEET, b, a, makes=b)]
    run_jobs(jobs, tmp_path / "root", 2)
    assert a.exists()
    assert b.exists()


def test_a_job_waits_for_what_it_reads(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    slow = f"import time; time.sleep(1); {WRITE}"
    copy = "import sys, pathlib as p; p.Path(sys.argv[2]).write_text(p.Path(sys.argv[1]).read_text() * 2)"  # noqa: E501
    jobs = [
        files_job("a", slow, a, "once ", makes=a),
        files_job("b", copy, a, b, makes=b, reads=(str(a),)),
    ]
    run_jobs(jobs, tmp_path / "root", 2)
    assert b.read_text() == "once once "


def test_after_a_failure_nothing_more_starts(tmp_path):
    made = [tmp_path / name for name in "abc"]
    jobs = [
        files_job("a", "print('out of luck'); raise SystemExit(3)", makes=made[0]),
        files_job("b", WRITE, made[1], "", makes=made[1], reads=(str(made[0]),)),
        files_job("c", WRITE, made[2], "", makes=made[2]),
    ]
    with pytest.raises(RuntimeError, match=r"a: its command ended with code 3; .*logs.a\.log"):
        run_jobs(jobs, tmp_path / "root", 1)
    assert "out of luck" in (tmp_path / "root" / "logs" / "a.log").read_text()
    assert not made[1].exists()
    assert not made[2].exists()


def test_finished_jobs_are_left_and_variables_reach_the_command(tmp_path, capsys):
    code = "import os, sys, pathlib; pathlib.Path(sys.argv[1]).write_text(os.environ['GREETING'])"
    job = files_job("a/b", code, tmp_path / "a", makes=tmp_path / "a")
    run_jobs([job], tmp_path / "root", 1, {"GREETING": "hello"})
    assert (tmp_path / "a").read_text() == "hello"
    before = time.time_ns(), (tmp_path / "a").stat().st_mtime_ns
    run_jobs([job], tmp_path / "root", 1, {"GREETING": "again"})
    assert (tmp_path / "a").stat().st_mtime_ns == before[1]
    assert f"# a/b is finished: {tmp_path / 'a'}" in capsys.readouterr().out


NOTE = "import os, sys, pathlib; pathlib.Path(sys.argv[1]).write_text(os.environ['CUDA_VISIBLE_DEVICES'])"  # noqa: E501


def test_each_job_gets_gpus_of_its_own(tmp_path):
    """Two jobs that meet have four GPUs, two each; a third for five of them gets all four."""
    a, b, c = (tmp_path / name for name in "abc")
    meet = f"{MEET.replace('raise', NOTE + '; raise')}"
    jobs = [
        replace(files_job("a", meet, a, b, makes=a), gpus=2),
        replace(files_job("b", meet, b, a, makes=b), gpus=2),
        replace(files_job("c", NOTE, c, makes=c), gpus=5),
    ]
    run_jobs(jobs, tmp_path / "root", 4, gpus=["3", "1", "GPU-e7", "0"])
    names = [a.read_text().split(","), b.read_text().split(",")]
    assert sorted(names[0] + names[1]) == ["0", "1", "3", "GPU-e7"]
    assert [len(half) for half in names] == [2, 2]
    assert sorted(c.read_text().split(",")) == ["0", "1", "3", "GPU-e7"]


def test_a_job_does_not_wait_for_one_that_waits(tmp_path):
    """b waits for a, and c, behind b, has a place meanwhile: a ends only when c is there."""
    a, b, c = (tmp_path / name for name in "abc")
    jobs = [
        files_job("a", MEET, a, c, makes=a),
        files_job("b", WRITE, b, "", makes=b, reads=(str(a),)),
        files_job("c", MEET, c, a, makes=c),
    ]
    run_jobs(jobs, tmp_path / "root", 2)
    assert b.exists()


@pytest.mark.parametrize(
    ("variable", "names"),
    [(None, ["0", "1"]), ("4,GPU-e7,2", ["4", "GPU-e7"]), ("", []), ("-1", [])],
)
def test_gpus_that_may_be_used(monkeypatch, variable, names):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus(2) == names


def test_fewer_gpus_than_asked_for(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(ValueError, match=r"at most the 2 that CUDA_VISIBLE_DEVICES=4,5 allows"):
        visible_gpus(3)


def test_no_process_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"processes: expected 1 or more, found 0"):
        run_jobs([], tmp_path, 0)


PARENT = """
import sys
from dap.jobs import Job
from dap.jobs.running import run_job
code = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(5)"
run_job(Job("slow", "files", ("python", "-c", code, sys.argv[1]), sys.argv[1]), sys.argv[2])
"""


def test_command_that_outlives_its_caller_keeps_the_lock(tmp_path):
    begun = tmp_path / "begun"
    with subprocess.Popen([sys.executable, "-c", PARENT, str(begun), str(tmp_path)]) as process:
        end = time.monotonic() + 120
        while not begun.exists() and time.monotonic() < end:
            time.sleep(0.02)
        assert begun.exists()
        process.send_signal(signal.SIGKILL)
    with open(tmp_path / ".locks" / "slow", "w") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for the command's end
