"""Check an installation: what is installed, what fails, and how to fix it.

It imports none of the packages that it checks, because ``tools/doctor.py`` has to work where
``import dap`` fails.
"""

import json
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dap import _requirements
from dap._requirements import Finding

OK, NOTE, FAIL = "ok", "note", "FAIL"
# Checks of dap/_probes.py, each with the advice if it fails.
CHECKS = {
    "ops": "mmcv's operators do not run. A compiled mmcv must be built for the torch in use; for "
    f"DAP's operators instead of those, run `{_requirements.REPLACE_MMCV}`",
    "cuda": "the GPU cannot be used: install a torch for its driver, or hide the GPU with "
    "CUDA_VISIBLE_DEVICES=''",
    "checkpoints": "reinstall the package that the error names",
}
SYSTEMS = ("Linux", "Darwin")
SECONDS = 300


@dataclass(frozen=True)
class Result:
    """One line of the report.

    Attributes:
        what: Name of the package or check.
        found: Version or result.
        needed: What DAP requires, ``""`` if there is nothing to state.
        state: ``OK``, ``NOTE`` for a problem that does not affect DAP as a whole, or ``FAIL``.
        advice: How to solve the problem.
    """

    what: str
    found: str
    needed: str = ""
    state: str = OK
    advice: str = ""


def examine() -> list[Result]:
    """Check the packages and, if all requirements are met, run the checks that use them."""
    packages = [_python(), _system(), *map(_package, _requirements.findings())]
    if not healthy(packages):
        return [*packages, *_mim()]
    with ThreadPoolExecutor(max_workers=2) as pool:
        mim = pool.submit(_mim)
        checks = [result for results in pool.map(_check, CHECKS) for result in results]
    return [*packages, *checks, *mim.result()]


def healthy(results: list[Result]) -> bool:
    """Whether no check has failed."""
    return all(result.state != FAIL for result in results)


def report(results: list[Result]) -> str:
    """Format the results as a table, followed by the advice."""
    rows = [("", "found", "needed", "")]
    rows += [(result.what, result.found, result.needed, result.state) for result in results]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    advice = [f"{r.state}: {r.what}: {r.advice}" for r in results if r.advice]
    verdict = "All that DAP needs works." if healthy(results) else "DAP cannot work like this."
    return "\n".join([*lines, "", *advice, verdict])


def _python() -> Result:
    tested = (3, 11) <= sys.version_info[:2] <= (3, 13)
    advice = ""
    if not tested:
        advice = (
            "DAP is tested with Python 3.11 to 3.13; at the start of a training MMEngine 0.10.7 "
            "calls pkgutil.find_loader, which Python 3.14 has removed"
        )
    return Result(
        "Python", platform.python_version(), "3.11 to 3.13", OK if tested else NOTE, advice
    )


def _system() -> Result:
    system = platform.system()
    if system in SYSTEMS:
        return Result("system", system)
    advice = "DAP runs on Linux and macOS; on Windows use WSL 2"
    return Result("system", system, "Linux, macOS", FAIL, advice)


def _package(finding: Finding) -> Result:
    requirement = finding.requirement
    needed = f">= {requirement.minimum}" if requirement.minimum else ""
    if finding.problem:
        return Result(requirement.module, finding.found, needed, FAIL, finding.problem)
    if finding.untested:
        advice = f"DAP was tested with versions below {requirement.tested_below}"
        return Result(requirement.module, finding.found, needed, NOTE, advice)
    return Result(requirement.module, finding.found, needed)


def _check(name: str) -> list[Result]:
    """Run a check of ``_probes.py`` in a process."""
    probes = Path(__file__).with_name("_probes.py")
    done = _run("-P", str(probes), name)  # -P: the folder of the file must not shadow packages
    if done.returncode == 0:
        return [Result(**result) for result in json.loads(done.stdout.splitlines()[-1])]
    return [Result(name, "failed", state=FAIL, advice=f"{_last_error(done)}: {CHECKS[name]}")]


def _mim() -> list[Result]:
    done = _run("-m", "mim", "--version")
    if done.returncode == 0:
        return [Result("mim", done.stdout.split()[-1])]
    cure = "for `mim train ...`, which needs it, run `pip install openmim 'setuptools<81'`"
    return [Result("mim", "does not run", state=NOTE, advice=f"{_last_error(done)}: {cure}")]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {SECONDS} s")


def _last_error(done: subprocess.CompletedProcess[str]) -> str:
    """Last line of the standard error; the exit code if it is empty, as after a crash."""
    lines = done.stderr.strip().splitlines() or [f"ended with exit code {done.returncode}"]
    return lines[-1]
