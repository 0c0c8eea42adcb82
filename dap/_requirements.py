"""The packages that DAP requires, checked without importing them.

Packages are identified by module name, so that forks with the same module names are accepted.
Distribution names are not reliable: the folder mmcv/ can belong to mmcv, mmcv-lite or a fork, and
dap installs a file into it. Only the standard library is used, because the doctor needs this file
where ``import dap`` fails.
"""

import importlib.util
import re
import runpy
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

MMCV_LITE = "pip install mmcv-lite==2.1.0"
# Both distributions contain the folder mmcv/, so the old one is uninstalled first.
REPLACE_MMCV = f"pip uninstall --yes mmcv && {MMCV_LITE}"
OPERATORS_AGAIN = "pip install --force-reinstall --no-deps"


class RequirementError(RuntimeError):
    """A package that DAP requires is missing or does not work with DAP.

    It is no ImportError, because MMEngine ignores an ImportError while it imports ``dap`` for
    ``type='dap.X'``, and then reports only that ``dap.X`` is not registered.
    """


@dataclass(frozen=True)
class Requirement:
    """One dependency of pyproject.toml.

    Attributes:
        module: Name of the module.
        install: Requirement for pip. Its lower bound is required. Its upper bound only limits the
            tested range, because forks have other version numbers.
        cure: Command that installs it, if it is not ``pip install`` with ``install``.
    """

    module: str
    install: str
    cure: str = ""

    @property
    def minimum(self) -> str:
        """Lowest version that works, ``""`` if there is no bound."""
        return _bound(self.install, ">=")

    @property
    def tested_below(self) -> str:
        """First version after the tested range, ``""`` if there is no bound."""
        return _bound(self.install, "<")

    def problem(self, what: str) -> str:
        """Format a problem and its cure as one sentence."""
        cure = self.cure or f"pip install '{self.install}'"
        return f"{what}: run `{cure}`"


@dataclass(frozen=True)
class Finding:
    """Result of checking one requirement.

    Attributes:
        requirement: The requirement.
        found: The version, or "missing", or "installed" if the module states no version.
        problem: One sentence with the cure, ``""`` if there is none.
    """

    requirement: Requirement
    found: str
    problem: str = ""

    @property
    def untested(self) -> bool:
        """Whether the version is newer than the range that DAP was tested with."""
        limit = release(self.requirement.tested_below)
        return bool(limit) and release(self.found) >= limit


REQUIREMENTS = (
    Requirement("torch", "torch>=2.6"),
    Requirement("torchvision", "torchvision>=0.21"),
    Requirement("numpy", "numpy>=1.26"),
    Requirement("cv2", "opencv-python>=4.8"),
    Requirement("PIL", "pillow>=10"),
    Requirement("pyarrow", "pyarrow>=16"),
    Requirement("pycocotools", "pycocotools>=2.0.7"),
    Requirement("safetensors", "safetensors>=0.4"),
    Requirement("matplotlib", "matplotlib>=3.8"),
    Requirement("jinja2", "jinja2>=3.1"),
    Requirement("tqdm", "tqdm"),
    Requirement("mmengine", "mmengine>=0.10.7,<0.11"),
    Requirement("mmcv", "mmcv>=2.1,<2.2", MMCV_LITE),
    Requirement("mmdet", "mmdet>=3.3,<3.4"),
    Requirement("mmpretrain", "mmpretrain>=1.2,<2"),
    Requirement("pkg_resources", "setuptools<81"),
)


def release(version: str) -> tuple[int, ...]:
    """Read the leading numbers of a version: ``"2.11.0+cu130"`` gives (2, 11, 0)."""
    head = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, head.group().split("."))) if head else ()


def findings() -> list[Finding]:
    """Check all requirements, in the order of :data:`REQUIREMENTS`."""
    by_module = {requirement.module: _find(requirement) for requirement in REQUIREMENTS}
    for check_further in (_mmcv_for_mmdet, _operators_of_mmcv, _pkg_resources_for_mmengine):
        finding = check_further(by_module)
        by_module[finding.requirement.module] = finding
    return list(by_module.values())


def check() -> None:
    """Check that all requirements are met.

    Raises:
        RequirementError: If one is not met; the message is one sentence with the first problem
            and its cure.
    """
    problems = [finding.problem for finding in findings() if finding.problem]
    if problems:
        more = f" ({len(problems) - 1} more: see tools/doctor.py)" if problems[1:] else ""
        raise RequirementError(problems[0] + more)


def _bound(install: str, operator: str) -> str:
    match = re.search(rf"{operator}([\d.]+)", install)
    return match.group(1) if match else ""


def _find(requirement: Requirement) -> Finding:
    folder = _folder(requirement.module)
    minimum = f" >= {requirement.minimum}" if requirement.minimum else ""
    needed = f"DAP needs {requirement.module}{minimum}"
    if folder is None:
        return Finding(requirement, "missing", requirement.problem(f"{needed}, and found none"))
    version = _version(folder)
    if version and release(version) < release(requirement.minimum):
        what = f"{needed}, and found {version} in {folder}"
        return Finding(requirement, version, requirement.problem(what))
    return Finding(requirement, version or "installed")


def _mmcv_for_mmdet(by_module: dict[str, Finding]) -> Finding:
    """Check that mmcv < 2.2, which MMDetection 3.3 asserts on import; its forks do not."""
    mmcv, mmdet = by_module["mmcv"], by_module["mmdet"]
    if mmcv.found != "missing" and mmcv.problem:
        old = mmcv.problem.rpartition(": run ")[0]
        return Finding(mmcv.requirement, mmcv.found, f"{old}: {_replace_mmcv()}")
    if mmcv.problem or not mmcv.untested or release(mmdet.found)[:2] != (3, 3):
        return mmcv
    what = f"mmdet {mmdet.found} refuses mmcv >= 2.2, and found {mmcv.found}"
    return Finding(mmcv.requirement, mmcv.found, f"{what}: {_replace_mmcv()}")


def _replace_mmcv() -> str:
    return f"install DAP in a new environment, or run `{REPLACE_MMCV}`"


def _operators_of_mmcv(by_module: dict[str, Finding]) -> Finding:
    """Check that mmcv has operators: compiled ones, or those that DAP installs."""
    mmcv, folder = by_module["mmcv"], _folder("mmcv")
    if mmcv.problem or folder is None or PathFinder.find_spec("_ext", [str(folder)]):
        return mmcv
    what = (
        f"{folder} has no operators: no compiled ones for this Python, and not those that DAP "
        "installs beside mmcv"
    )
    cure = f"install DAP again, after mmcv: run `{OPERATORS_AGAIN} dap`, in its checkout `… -e .`"
    return Finding(mmcv.requirement, f"{mmcv.found} without operators", f"{what}: {cure}")


def _pkg_resources_for_mmengine(by_module: dict[str, Finding]) -> Finding:
    """Check for pkg_resources, by which MMEngine up to 0.10.7 resolves ``_base_ = 'mmdet::…'``."""
    setuptools, mmengine = by_module["pkg_resources"], by_module["mmengine"]
    if not setuptools.problem:
        return setuptools
    if release(mmengine.found) > (0, 10, 7):
        return Finding(setuptools.requirement, "not needed")
    what = "MMEngine needs pkg_resources for `_base_ = 'mmdet::...'`, and setuptools 81 has none"
    return Finding(setuptools.requirement, "missing", setuptools.requirement.problem(what))


def _folder(module: str) -> Path | None:
    """Folder of an importable package; None for namespace packages, which are other folders."""
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent if spec and spec.origin else None


def _version(folder: Path) -> str:
    """Version in the package's ``version.py``, ``""`` if there is none."""
    file = folder / "version.py"
    if not file.is_file():
        return ""
    literal = re.search(r"^__version__ = ['\"](.+)['\"]", file.read_text("utf-8"), re.MULTILINE)
    if literal:
        return literal.group(1)
    try:  # numpy and the forks compute it, without heavy imports
        return runpy.run_path(str(file)).get("__version__", "")
    except ImportError:  # PackageNotFoundError of a fork without metadata
        return ""
