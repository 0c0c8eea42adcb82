"""Ways to install DAP that the README names."""

import re
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def readme_command(start):
    """The one line of the README's code blocks that begins so."""
    (line,) = re.findall(rf"^{re.escape(start)}.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    return line


def test_compiled_operators_are_preferred_to_those_of_dap(tmp_path):
    """DAP puts _ext.py beside whatever mmcv there is."""
    (tmp_path / "_ext.py").touch()
    assert PathFinder.find_spec("_ext", [str(tmp_path)]).origin.endswith("_ext.py")
    (tmp_path / f"_ext{EXTENSION_SUFFIXES[0]}").touch()
    PathFinder.invalidate_caches()
    origin = PathFinder.find_spec("_ext", [str(tmp_path)]).origin
    assert origin.endswith(EXTENSION_SUFFIXES[0])


def test_operators_are_found_without_importing_dap():
    """mmdet imports mmcv.ops before any custom_imports of a config."""
    code = "import sys, mmcv._ext, mmcv.ops; assert 'dap' not in sys.modules; print(mmcv._ext.nms)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr


def test_mmcv_is_no_hard_dependency():
    """Installing DAP must not put mmcv-lite over an mmcv."""
    from importlib.metadata import requires

    needed = [re.match(r"[\w-]+", line).group() for line in requires("dap")]
    assert "torch" in needed
    assert not [name for name in needed if "mmcv" in name]


@pytest.mark.slow
def test_pip_alone_in_a_fresh_environment(tmp_path):
    """Needs a network, or pip's cache: some gigabytes."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    command = readme_command("pip install torch torchvision mmcv-lite")
    done = subprocess.run(
        [str(python), "-m", *command.split()], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [str(python), "tools/doctor.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.endswith("All that DAP needs works.\n"), done.stdout + done.stderr
    assert "torchvision's and torch's, by DAP" in done.stdout
