"""The environment of a machine, and the tests that need a GPU."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import torch
from gpu_rows import Options, Report, Row

ROOT = Path(__file__).resolve().parents[2]


def environment(options: Options, report: Report) -> None:
    """Report the GPU and the versions, and run one operation on the device.

    Raises:
        RuntimeError: If there is no such device, or it does not work.
    """
    report(Row("python, cores", f"{sys.version.split()[0]}, {len(os.sched_getaffinity(0))} cores"))
    report(Row("torch", f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN "
               f"{torch.backends.cudnn.version()}"))  # fmt: skip
    for name in ("torchvision", "mmengine", "mmcv", "mmdet", "mmpretrain", "dap"):
        report(Row(name, importlib.import_module(name).__version__))
    report(Row("operators of mmcv", str(importlib.import_module("mmcv._ext").__file__)))
    if options.device == "cpu":
        report(Row("GPU", "not requested", "skipped"))
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        capability = f"sm_{properties.major}{properties.minor}"
        report(Row(f"GPU {index}", f"{properties.name}, {memory}, {capability}"))
    driver = Path("/proc/driver/nvidia/version")
    report(Row("driver", driver.read_text().splitlines()[0] if driver.exists() else "unknown"))
    ones = torch.ones(1000, 1000, device="cuda")
    total = float((ones @ ones).sum())
    if total != 1e9:
        raise RuntimeError(f"a product of ones on the GPU sums to {total}, expected 1e9")


class Recorder:
    """Pytest plugin that reports each test when it is finished."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Report a passed test, or the phase of a test that failed or was skipped."""
        name = report.nodeid.split("::")[-1]
        seconds = f"{report.duration:.1f} s"
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            self.report(Row(name, str(reason), "skipped"))
        elif report.failed:
            lines = str(report.longrepr).splitlines()[-8:]
            self.report(Row(name, "\n".join([f"{report.when}, {seconds}", *lines]), "failed"))
        elif report.when == "call":
            self.report(Row(name, seconds))


def tests(options: Options, report: Report) -> None:
    """Run the tests marked ``gpu``.

    Raises:
        RuntimeError: If pytest could not run them.
    """
    import pytest

    os.chdir(ROOT)
    # Overrides the options of pyproject.toml, which need pytest-xdist.
    arguments = ["-o", "addopts=", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests/gpu"]
    code = pytest.main(arguments, plugins=[Recorder(report)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {code!r}")
