"""A fixture for folders whose tests use mmpretrain's registries: import it in their conftest."""

import pytest
from mmengine.registry import init_default_scope


@pytest.fixture(autouse=True)
def mmpretrain_scope(fresh_mmengine):
    init_default_scope("mmpretrain")
