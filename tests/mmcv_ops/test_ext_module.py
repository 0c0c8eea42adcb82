"""The module as it lies in ``mmcv/``: what imports it and what it lacks."""

import ast
import importlib.machinery
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mmcv
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "dap" / "mmcv_ops"


def names_that_mmcv_asks_for():
    """All operators in the calls of load_ext in ``mmcv/ops``."""
    names = set()
    for path in (Path(mmcv.__file__).parent / "ops").glob("*.py"):
        for call in re.findall(r"load_ext\((.*?)\)", path.read_text(), re.DOTALL):
            names.update(re.findall(r"'(\w+)'", call))
    return names - {"_ext"}


def test_every_operator_that_mmcv_asks_for_is_there_and_says_what_it_lacks(ext):
    names = names_that_mmcv_asks_for()
    assert {"nms", "knn_forward"} <= names
    missing = [name for name in sorted(names) if name not in vars(ext)]
    assert "knn_forward" in missing
    for name in missing:
        with pytest.raises(NotImplementedError, match=rf"{name} \(mmcv\.ops\..*used by") as error:
            getattr(ext, name)()
        assert "MMCV_WITH_OPS=1" in str(error.value)


def test_an_operator_of_another_mmcv_raises_when_called(ext):
    with pytest.raises(
        NotImplementedError, match="operator new_forward is not available without a compiler"
    ):
        ext.new_forward(torch.zeros(1))


def test_private_names_are_not_operators(ext):
    with pytest.raises(AttributeError, match="_nothing"):
        _ = ext._nothing


def test_the_listing_of_an_environment_says_that_no_compiler_was_used(mmcv_ops):
    assert mmcv_ops.get_compiler_version().startswith("none")
    assert mmcv_ops.get_compiling_cuda_version() == "not available"


def test_nothing_but_torch_torchvision_and_numpy_is_imported():
    allowed = {"torch", "torchvision", "numpy", *sys.stdlib_module_names}
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {a.name.split(".")[0] for a in node.names} <= allowed, path
            if isinstance(node, ast.ImportFrom):
                assert node.level or node.module.split(".")[0] in allowed, path


def test_the_two_parts_work_inside_a_folder_mmcv(tmp_path):
    """As the wheel lays them: mmcv/_ext.py beside mmcv/_ext_torch/."""
    target = tmp_path / "mmcv"
    target.mkdir()
    (target / "__init__.py").write_text("")
    shutil.copy(FOLDER / "_ext.py", target)
    shutil.copytree(FOLDER / "_ext_torch", target / "_ext_torch")
    code = (
        "import sys, torch, mmcv._ext as e; assert 'dap' not in sys.modules;"
        "print(e.nms(torch.tensor([[0., 0, 1, 1]]), torch.ones(1), .5, 0).tolist())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[0]"


def test_a_compiled_module_in_the_same_folder_is_preferred(tmp_path):
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (tmp_path / "_ext.py").write_text("")
    (tmp_path / f"_ext{suffix}").write_bytes(b"")
    finder = importlib.machinery.FileFinder(
        str(tmp_path),
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES),
    )
    assert finder.find_spec("_ext").origin.endswith(suffix)


def test_autocast_does_not_reach_the_operators(mmcv_ops):
    """Inside, torchvision's operators would convert float32 and back, or mix dtypes."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = torch.randn(1, 2, 4, 4, dtype=torch.bfloat16)
        rois = torch.tensor([[0, 0, 0, 3, 3]], dtype=torch.bfloat16)
        assert mmcv_ops.roi_align(features, rois, (2, 2)).dtype == torch.bfloat16
        loss = mmcv_ops.sigmoid_focal_loss(torch.randn(3, 2), torch.tensor([0, 1, 2]))
        assert loss.dtype == torch.float32
