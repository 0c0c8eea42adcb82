import sys
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope

sys.path.insert(0, str(Path(__file__).parents[1] / "pseudo_boxes"))  # the planted classifier
sys.path.append(str(Path(__file__).parents[2] / "tools" / "benchmarks"))  # the table


@pytest.fixture(autouse=True)
def mmpretrain_scope(fresh_mmengine):
    init_default_scope("mmpretrain")
