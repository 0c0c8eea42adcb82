"""Threads, no network, and no state of MMEngine that outlives a test."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is imported; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Helpers lie beside the tests.
sys.path.insert(0, str(Path(__file__).parent))


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


def _forget() -> None:
    from mmengine.utils import ManagerMixin

    for manager in _managers(ManagerMixin):
        for instance in manager._instance_dict.values():
            if isinstance(instance, logging.Logger):
                for handler in instance.handlers:
                    handler.close()
        manager._instance_dict.clear()
