"""Python programs in processes that are forked from one that has done nothing but imports.

A process of its own imports torch and mmdet anew, which takes seconds.
"""

import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.support.preloaded"])
_STARTING = threading.Lock()


def run(command, cwd=None, env=None, timeout=300):
    """Run a Python program as ``subprocess.run`` does, with both of its streams in ``stdout``.

    Args:
        command: ``[sys.executable, script, ...]`` or ``[sys.executable, "-m", module, ...]``.
        cwd: Folder to run in; None for the current one.
        env: All of its environment; None for that of this process.
        timeout: Seconds after which it is killed; its exit code is then negative.
    """
    command = [str(part) for part in command]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "output")
        with _STARTING:  # threads share the current folder
            arguments = command[1:], str(cwd or Path.cwd()), dict(env or os.environ), log
            process = SERVER.Process(target=_run_program, args=arguments)
            with contextlib.chdir(ROOT):  # the first call starts the server, which imports tests
                process.start()
        process.join(timeout)
        process.kill()  # has no effect if it has ended
        process.join()
        return subprocess.CompletedProcess(command, process.exitcode, log.read_text(), "")


def jobs():
    """Context in which ``run_job`` forks the Python programs among its commands."""
    return patch("dap.jobs.running.subprocess", SimpleNamespace(run=_run_job_command))


def _run_job_command(command, env, stdout, stderr, pass_fds):
    if command[0] != sys.executable or command[1] == "-c":
        return subprocess.run(command, env=env, stdout=stdout, stderr=stderr, pass_fds=pass_fds)
    done = run(command, env=env)
    print(done.stdout, file=stdout or sys.stderr, flush=True)
    return done


def _run_program(arguments, folder, environment, log):
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    module, arguments = (arguments[1], arguments[1:]) if arguments[0] == "-m" else ("", arguments)
    sys.argv = arguments
    if module:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")
