"""Tests that need a CUDA GPU; python -m pytest -m gpu."""

import sys
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope

sys.path.insert(0, str(Path(__file__).parent))

from runs import ZooRuns

from tests.support.scope import mmpretrain_scope  # noqa: F401


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """Images and a checkpoint of a ResNet-18 of the zoo."""
    init_default_scope("mmpretrain")
    return ZooRuns.make(tmp_path_factory.mktemp("zoo"))
