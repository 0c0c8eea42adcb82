"""The notebooks run from the first to the last cell, and show what they promise."""

import json
import shutil
import sys

import pytest

from tests.support.markdown_files import ROOT

nbformat = pytest.importorskip("nbformat", reason="notebooks need the group docs: uv sync")
nbclient = pytest.importorskip("nbclient", reason="notebooks need the group docs: uv sync")

NOTEBOOKS = ROOT / "docs" / "notebooks"
LARGEST = 300_000  # bytes of a notebook with its pictures
KERNEL = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import tests.support.fast_configs
sys.path.pop(0)
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
"""


def run(name, folder, monkeypatch, shorter=()):
    """Run a notebook in a folder of its own; return it with its outputs.

    ``shorter``: file, a text in it that occurs, and its replacement.
    """
    shutil.copytree(NOTEBOOKS, folder, dirs_exist_ok=True)
    for file, text, replacement in shorter:
        before = (folder / file).read_text()
        assert text in before
        (folder / file).write_text(before.replace(text, replacement))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("JUPYTER_PATH", str(folder))  # a kernel that is this Python
    kernel = folder / "kernels" / "dap-test" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    program = [sys.executable, "-c", KERNEL, "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": program, "display_name": "test", "language": "python"}))
    notebook = nbformat.read(folder / f"{name}.ipynb", 4)
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="dap-test", resources=resources
    )
    client.execute()
    return notebook


def outputs(notebook):
    """All text of the outputs, and the number of pictures."""
    found = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = sum("image/png" in output.get("data", {}) for output in found)
    texts = (o.get("text") or o.get("data", {}).get("text/plain", "") for o in found)
    return "".join(texts), pictures


def test_own_images(tmp_path, monkeypatch):
    text, pictures = outputs(run("own_images", tmp_path, monkeypatch))
    assert pictures == 1
    assert "GT-known localisation" in text
    assert text.count("average recall") == 4  # the table, and three selections
    assert (tmp_path / "inspection" / "index.html").is_file()


def test_cls_against_dap(tmp_path, monkeypatch):
    shorter = [
        ("configs/pretrain.py", "iterations = 100", "iterations = 20"),
        ("configs/finetune_dap.py", "iter_100", "iter_20"),
        ("configs/finetune_cls.py", "iterations = 30", "iterations = 9"),
        ("configs/finetune_cls.py", "val_interval=10", "val_interval=3"),
    ]
    text, pictures = outputs(run("cls_against_dap", tmp_path, monkeypatch, shorter))
    assert pictures == 1
    assert "Δ to CLS" in text
    assert "differ in more than initialisation" not in text


@pytest.mark.parametrize("name", ["own_images", "cls_against_dap"])
def test_stored_outputs_are_small_and_whole(name):
    """The pages show the outputs of one run from the first to the last cell, without errors."""
    path = NOTEBOOKS / f"{name}.ipynb"
    assert path.stat().st_size < LARGEST
    notebook = nbformat.read(path, 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds <= {"stream", "execute_result", "display_data"}
    assert "/tmp" not in path.read_text()
