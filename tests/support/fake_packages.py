"""An installation made of packages that hold nothing but a version."""

import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIT = {
    "torch": "2.11.0+cu130",
    "torchvision": "0.26.0",
    "numpy": "2.4.6",
    "cv2": None,
    "PIL": None,
    "pyarrow": None,
    "pycocotools": None,
    "safetensors": None,
    "matplotlib": None,
    "jinja2": None,
    "tqdm": None,
    "mmengine": "0.10.7",
    "mmcv": "2.1.0",
    "mmdet": "3.3.0",
    "mmpretrain": "1.2.0",
    "pkg_resources": None,
}


def install(folder: Path, versions: dict[str, str | None], ops: bool = True) -> None:
    """Write the packages.

    Args:
        folder: Where to.
        versions: Module name to version; None for a package that states none.
        ops: Whether mmcv has its compiled extension.
    """
    for name, version in versions.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
        if version:
            (folder / name / "version.py").write_text(f"__version__ = '{version}'\n")
    if ops and "mmcv" in versions:
        (folder / "mmcv" / f"_ext{EXTENSION_SUFFIXES[0]}").touch()


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python that sees these packages, the standard library and dap: nothing else."""
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        env={"PYTHONPATH": f"{folder}:{ROOT}"},
        capture_output=True,
        text=True,
    )
