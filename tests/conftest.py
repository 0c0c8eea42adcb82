"""Threads, no network, no state of MMEngine that outlives a test, and programs in this process."""

import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before torch is imported; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

pytest.register_assert_rewrite("tests.support")

import mmengine.config.config  # noqa: E402

from tests.support import fast_configs  # noqa: E402

LONGEST = ("test_configs_run", "test_reproduce_run", "test_quickstart", "test_notebooks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first, so that all processes finish at about the same time."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def _managers(manager: type) -> Iterator[type]:
    yield manager
    for child in manager.__subclasses__():
        yield from _managers(child)


@pytest.fixture(autouse=True)
def fresh_mmengine() -> Iterator[None]:
    """Forget the scopes, loggers, message hubs and visualizers that a test has made."""
    _forget()  # imports of test files make some, too
    yield
    _forget()


@pytest.fixture
def formatted_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Format the text of configs with yapf, as MMEngine does for users."""
    monkeypatch.setattr(mmengine.config.config, "FormatCode", fast_configs.FORMAT_CODE)


@pytest.fixture
def log(fresh_mmengine: None) -> Iterator[Callable[[], str]]:
    """Read what MMEngine's current logger got."""
    from mmengine.logging import MMLogger

    records: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    logger = MMLogger.get_instance("test")
    logger.addHandler(Keep())
    yield lambda: "\n".join(records)
    logger.handlers.clear()


@pytest.fixture
def run_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program of ``tools/`` in this process, which has its imports; what a shell would get.

    A process of its own imports torch and mmdet anew, which takes seconds.
    """

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(Path(__file__).parents[1] / "tools" / f"{name}.py"), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        capsys.readouterr()
        code: object = 0
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        if isinstance(code, int):
            return subprocess.CompletedProcess(command, code, printed.out, printed.err)
        return subprocess.CompletedProcess(command, 1, printed.out, f"{printed.err}{code}\n")

    return run


def _forget() -> None:
    from mmengine.utils import ManagerMixin

    for manager in _managers(ManagerMixin):
        for instance in manager._instance_dict.values():
            if isinstance(instance, logging.Logger):
                for handler in instance.handlers:
                    handler.close()
        manager._instance_dict.clear()
