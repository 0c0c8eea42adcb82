"""Tests that need a CUDA GPU; python -m pytest -m gpu."""

import sys
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "pseudo_boxes"))

from runs import ZooRuns


@pytest.fixture(autouse=True)
def mmpretrain_scope(fresh_mmengine):
    init_default_scope("mmpretrain")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """Images and a checkpoint of a ResNet-18 of the zoo."""
    init_default_scope("mmpretrain")
    return ZooRuns.make(tmp_path_factory.mktemp("zoo"))
