"""Queues for batch jobs: a stand-in for Slurm's commands, and a Slurm of one node if it can run."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

COMMANDS = ("sbatch", "squeue", "srun", "scontrol")
# One file per job in the folder of the queue: what sbatch was told. Options of sbatch that are not
# listed here end it, as a wrong option ends the real one.
SBATCH = """#!{python}
import argparse, json, os, pathlib, sys
parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("job-name", "partition", "gres", "ntasks", "ntasks-per-node", "cpus-per-task", "time",
             "signal", "kill-on-invalid-dep", "open-mode", "output", "dependency", "account"):
    parser.add_argument("--" + name)
for name in ("parsable", "requeue"):
    parser.add_argument("--" + name, action="store_true")
parser.add_argument("command", nargs=argparse.REMAINDER)
args = parser.parse_args()
if args.account == "broke":
    sys.exit("sbatch: error: Invalid account")
folder = pathlib.Path({folder!r})
number = 100 + len(list(folder.glob("*.json")))
job = {{**vars(args), "id": str(number), "cwd": os.getcwd(), "env": dict(os.environ), "state": ""}}
(folder / f"{{number}}.json").write_text(json.dumps(job))
print(number)
"""
SQUEUE = """#!{python}
import json, pathlib
jobs = [json.loads(p.read_text()) for p in sorted(pathlib.Path({folder!r}).glob("*.json"))]
done = {{job["id"] for job in jobs if job["state"] == "COMPLETED"}}
for job in jobs:
    waits = [name for name in (job["dependency"] or "").split(":")[1:] if name not in done]
    if not job["state"]:
        waits = ",".join(f"afterok:{{name}}(unfulfilled)" for name in waits) or "(null)"
        print(job["id"], waits, job["job_name"], sep="|")
"""
SRUN = """#!{python}
import os, sys
command = sys.argv[1:]
tasks = [part.split("=")[1] for part in command if part.startswith("--ntasks=")]
assert tasks == ["1"], "this one starts a single task"
while command[0].startswith("--"):
    del command[0]
os.environ |= {{"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "1",
               "SLURM_LOCALID": "0", "SLURM_NODELIST": "localhost"}}
os.execvp(command[0], command)
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then echo localhost; else echo "$@" >> {folder}/said; fi
"""


class StandIn:
    """Commands that only note the jobs; :meth:`wait` runs them, the last that may run first."""

    def __init__(self, folder):
        self.jobs = folder / "queue"
        self.bin = folder / "bin"
        for made in (self.jobs, self.bin):
            made.mkdir(parents=True)
        for name, text in zip(COMMANDS, (SBATCH, SQUEUE, SRUN, SCONTROL), strict=True):
            script = self.bin / name
            script.write_text(text.format(python=sys.executable, folder=str(self.jobs)))
            script.chmod(0o755)
        self.variables = {"PATH": f"{self.bin}:{os.environ['PATH']}"}

    def read(self):
        return {path: json.loads(path.read_text()) for path in sorted(self.jobs.glob("*.json"))}

    def wait(self):
        """Run all jobs: each after those it depends on, and none after one that failed."""
        while True:
            jobs = self.read()
            states = {job["id"]: job["state"] for job in jobs.values()}
            ready = []
            for path, job in jobs.items():
                kind, _, names = (job["dependency"] or "afterok:").partition(":")
                assert kind == "afterok"
                before = [states[name] for name in names.split(":") if name]
                if job["state"]:
                    continue
                if "FAILED" in before or "CANCELLED" in before:
                    assert job["kill_on_invalid_dep"] == "yes"
                    path.write_text(json.dumps({**job, "state": "CANCELLED"}))
                    break
                if all(state == "COMPLETED" for state in before):
                    ready.append((path, job))
            else:
                if not ready:
                    assert all(states.values()), states
                    return
                path, job = ready[-1]
                path.write_text(json.dumps({**job, "state": self.run(job)}))

    def run(self, job):
        variables = {**job["env"], "SLURM_JOB_ID": job["id"]}
        with open(Path(job["cwd"]) / job["output"], "a") as log:
            done = subprocess.run(
                job["command"], cwd=job["cwd"], env=variables, stdout=log, stderr=log
            )
        return "FAILED" if done.returncode else "COMPLETED"


SLURM = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
ReturnToService=2
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Gres=gpu:2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=gpu Nodes={host} Default=YES MaxTime=INFINITE State=UP GraceTime=20
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class RealSlurm:
    """A Slurm of one node with two make-believe GPUs."""

    def __init__(self, folder):
        self.variables = {"SLURM_CONF": str(folder / "slurm.conf")}

    def wait(self):
        """Wait until no job waits or runs."""
        deadline = time.monotonic() + 500
        while (queue := self.said("squeue", "--noheader")).strip():
            assert time.monotonic() < deadline, queue
            time.sleep(0.5)

    def said(self, *command):
        variables = {**os.environ, **self.variables}
        return subprocess.run(
            command, env=variables, check=True, capture_output=True, text=True
        ).stdout


@contextmanager
def real_slurm(folder):
    """Run Slurm's daemons as long as the context lasts; skip where they are not installed."""
    paths = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in
             ("munged", "slurmctld", "slurmd", "sbatch")}  # fmt: skip
    if not all(paths.values()) or os.getuid():
        pytest.skip("no Slurm here that can be started: slurmctld, slurmd and munge, as root")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host, cpus = socket.gethostname().split(".")[0], os.cpu_count()
    ports = [free_port(), free_port()]
    text = SLURM.format(folder=folder, host=host, cpus=cpus, ports=ports)
    (folder / "slurm.conf").write_text(text)
    devices = "".join(f"Name=gpu File={file}\n" for file in ("/dev/null", "/dev/zero"))
    (folder / "gres.conf").write_text(devices)
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o400)
    slurm = RealSlurm(folder)
    files = {"key": "key", "socket": "munge", "pid": "munge.pid", "log": "munge.log",
             "seed": "seed"}  # fmt: skip
    flags = [f"--{name}{'' if name == 'socket' else '-file'}={folder / file}"
             for name, file in files.items()]  # fmt: skip
    with ExitStack() as stack:
        for command in (
            [paths["munged"], "--foreground", "--force", *flags],
            [paths["slurmctld"], "-D"],
            [paths["slurmd"], "-D", "-N", host],
        ):
            with open(folder / "daemons.log", "a") as log:
                variables = {**os.environ, **slurm.variables}
                daemon = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
            time.sleep(1)
        deadline = time.monotonic() + 60
        while "idle" not in (state := slurm.said("sinfo", "--noheader", "--format=%T")):
            assert time.monotonic() < deadline, state + (folder / "daemons.log").read_text()
            time.sleep(0.5)
        yield slurm


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
