"""Batch jobs in a queue: a stand-in for Slurm, and Slurm itself where it can run."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from queues import StandIn, real_slurm

from dap.jobs import Job, Launcher, Submission
from dap.jobs.shipped import tools_folder
from dap.jobs.submission import job_name, sbatch_command, submit

LAUNCHER = Launcher(2, "slurm", "gpu")
# What a job does: adds a line to its file, which starts as those that it reads.
WORK = """
import pathlib, sys
name = sys.argv[sys.argv.index("--job") + 1]
before = {"b": ["a"], "c": ["a"], "d": ["b", "c"]}.get(name, [])
if pathlib.Path(f"fail_{name}").exists():
    sys.exit("out of luck")
text = "".join(pathlib.Path(other).read_text() for other in before)
with open(name, "a") as file:
    file.write(text + name)
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with real_slurm(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.fixture(params=["stand-in", "slurm"])
def queue(request, tmp_path, monkeypatch):
    """A queue, and a folder with the work as the current one."""
    if request.param == "slurm":
        queue = request.getfixturevalue("slurm")
    else:
        queue = StandIn(tmp_path / "stand-in")
    for name, value in {**queue.variables, "CPUS_PER_TASK": "1"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("work.py").write_text(WORK)
    return queue


def diamond():
    """d needs b and c, which need a; e needs nothing. They have 1, 2, 0, 1 and 1 GPUs."""
    reads = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ()}
    gpus = dict(zip("abcde", (1, 2, 0, 1, 1), strict=True))
    return [
        Job(name, "files", ("true",), name, inputs=files, reads=files, gpus=gpus[name])
        for name, files in reads.items()
    ]


def handed(jobs=None, dry_run=False, **more):
    call = (sys.executable, "work.py")
    submit(jobs or diamond(), LAUNCHER, "root", Submission(call, **more), dry_run)


def contents():
    return {name: Path(name).read_text() for name in "abcde" if Path(name).exists()}


DONE = {"a": "a", "b": "ab", "c": "ac", "d": "abacd", "e": "e"}


def test_each_job_runs_once_after_those_it_needs(queue, capsys):
    handed(time="10")
    assert capsys.readouterr().out.count(" is submitted: ") == 5
    queue.wait()
    assert contents() == DONE
    handed()
    assert capsys.readouterr().out.count(" is finished: ") == 5


def test_a_failed_job_takes_those_with_it_that_need_it(queue, capsys):
    Path("fail_b").touch()
    handed()
    queue.wait()
    assert contents() == {name: DONE[name] for name in "ace"}
    assert "out of luck" in Path("root/logs/b.log").read_text()
    Path("fail_b").unlink()
    capsys.readouterr()
    handed()  # the same call goes on
    said = capsys.readouterr().out
    assert said.count(" is finished: ") == 3
    assert said.count(" is submitted: ") == 2
    queue.wait()
    assert contents() == DONE


def test_jobs_that_slurm_is_about_to_remove_are_queued_again(tmp_path, monkeypatch, capsys):
    """The job that they wait for has failed, and the queue still lists them for some seconds."""
    queue = StandIn(tmp_path / "stand-in")
    monkeypatch.setenv("PATH", queue.variables["PATH"])
    monkeypatch.chdir(tmp_path)
    Path("work.py").write_text(WORK)
    handed()
    path, job = next(iter(queue.read().items()))
    path.write_text(json.dumps({**job, "state": "FAILED"}))
    capsys.readouterr()
    handed()
    said = capsys.readouterr().out
    assert said.count(" is submitted: ") == 4  # but e
    assert "# e is in the queue: 104" in said
    queue.wait()
    assert contents() == DONE


@pytest.mark.slow
def test_what_is_in_the_queue_is_not_queued_again(queue, capsys):
    Path("work.py").write_text(f"{WORK}\nimport time; time.sleep(5)\n")  # there for long enough
    jobs = diamond()
    handed(jobs[:2])
    handed(jobs)
    said = capsys.readouterr().out
    assert said.count(" is in the queue: ") == 2
    assert said.count(" is submitted: ") == 2 + 3
    queue.wait()
    assert contents() == DONE


def test_dry_run_prints_a_script_that_does_it(queue, capsys):
    handed(dry_run=True, time="10")
    script = capsys.readouterr().out
    assert contents() == {}
    assert not Path("root").exists()
    subprocess.run(["bash", "-euc", script], check=True)
    queue.wait()
    assert contents() == DONE


def test_options_of_a_job(monkeypatch):
    monkeypatch.setenv("CPUS_PER_TASK", "6")
    job = replace(diamond()[0], name="x/test", gpus=16)
    submission = Submission(("python", "it.py"), "1-0", ("--account=me",))
    head, tail = sbatch_command(job, LAUNCHER, "root", submission)
    assert head == [
        *("sbatch", "--parsable", f"--job-name={job_name(job, 'root')}", "--partition=gpu"),
        *("--gres=gpu:8", "--ntasks=16", "--ntasks-per-node=8", "--cpus-per-task=6"),
        *("--time=1-0", "--requeue", "--signal=B:USR1@120", "--kill-on-invalid-dep=yes"),
        *("--open-mode=append", "--output=root/logs/x_test.log"),
    ]
    script = str(tools_folder() / "slurm_job.sh")
    assert tail == ["--account=me", script, "python", "it.py", "--job", "x/test"]


def test_the_same_job_of_another_folder_has_another_name():
    job = diamond()[0]
    assert job_name(job, "one") == job_name(job, "./one")
    assert job_name(job, "one") != job_name(job, "other")


def test_a_job_that_slurm_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", StandIn(tmp_path / "stand-in").variables["PATH"])
    with pytest.raises(RuntimeError, match=r"a: sbatch ended with code 1: .*Invalid account"):
        handed(options=("--account=broke",))


def test_no_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="there is no sbatch on this machine"):
        handed()


QUEUED_AGAIN = """
import os, pathlib, signal, time
pathlib.Path(f"begun_{os.environ.get('SLURM_RESTART_COUNT', 0)}").touch()
if os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
    time.sleep(300)
"""


def test_a_job_near_its_time_is_queued_again(slurm, tmp_path, monkeypatch):
    """Slurm's own signal comes a minute before the end at the earliest, so that one is sent."""
    for name, value in {**slurm.variables, "CPUS_PER_TASK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text(QUEUED_AGAIN)
    handed(diamond()[:1])
    while not (tmp_path / "begun_0").exists():
        time.sleep(0.2)
    number = slurm.said("squeue", "--noheader", "--format=%A").strip()
    slurm.said("scancel", "--batch", "--signal=USR1", number)
    (tmp_path / "work.py").write_text(QUEUED_AGAIN + "pathlib.Path('a').touch()\n")
    deadline = time.monotonic() + 200
    while not (tmp_path / "a").exists():
        assert time.monotonic() < deadline
        time.sleep(1)
        # Slurm waits two minutes before a job that was queued again; this one need not.
        update = ["scontrol", "update", f"JobId={number}", "StartTime=now"]
        subprocess.run(update, capture_output=True)  # fails when the job has ended
    assert (tmp_path / "begun_1").exists()
    assert "is queued again" in (tmp_path / "root" / "logs" / "a.log").read_text()


PREEMPTED = """
import os, pathlib, subprocess
times = os.environ.get("SLURM_RESTART_COUNT", "0")
pathlib.Path(f"begun_{times}").touch()
if times == "0":
    raise SystemExit(subprocess.run(["srun", "--ntasks=1", "sleep", "300"]).returncode)
pathlib.Path("a").touch()
"""


@pytest.mark.slow
def test_a_job_that_is_preempted_with_a_grace_time_is_queued_again(slurm, tmp_path, monkeypatch):
    """Slurm ends its steps by SIGTERM first, so that the job fails before Slurm queues it again."""
    for name, value in {**slurm.variables, "CPUS_PER_TASK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text(PREEMPTED)
    handed(diamond()[:1])
    deadline = time.monotonic() + 200
    while not (tmp_path / "begun_0").exists() or "sleep" not in slurm.said("squeue", "--steps"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    number = slurm.said("squeue", "--noheader", "--format=%A").strip()
    urgent = ["sbatch", "--partition=urgent", "--exclusive", "--wrap=sleep 2"]
    slurm.said(*urgent)
    while not (tmp_path / "a").exists():
        assert time.monotonic() < deadline, (tmp_path / "root/logs/a.log").read_text()
        time.sleep(1)
        update = ["scontrol", "update", f"JobId={number}", "StartTime=now"]
        subprocess.run(update, capture_output=True)
