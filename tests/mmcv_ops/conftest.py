"""Load the operators from their files, so that a compiled ``mmcv._ext`` is not in the way."""

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "dap" / "mmcv_ops"


@pytest.fixture(scope="session")
def ext():
    name = "mmcv_ops_under_test"
    spec = importlib.util.spec_from_file_location(
        name, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    sys.modules[name] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{name}._ext")


@pytest.fixture
def mmcv_ops(ext, monkeypatch):
    """``mmcv.ops`` with our operators, whatever ``mmcv._ext`` is."""
    from mmcv import ops

    for name, module in list(sys.modules.items()):
        if name.startswith("mmcv.ops.") and hasattr(module, "ext_module"):
            monkeypatch.setattr(module, "ext_module", ext)
    return ops
