"""Packages import only from those above them in docs/architecture.md, and no private names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = re.findall(r"^\| `dap\.(\w+)` \|", TABLE, re.MULTILINE)


def imports(path: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """Module and name of each import from dap in a file."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((tuple(alias.name.split(".")), "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = (*above, *(node.module or "").split("."))
            yield from ((tuple(filter(None, module)), alias.name) for alias in node.names)


def test_table_names_all_packages():
    folders = {path.parent.name for path in ROOT.glob("dap/*/__init__.py")}
    assert set(PACKAGES) == folders


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_upwards(package):
    below = set(PACKAGES[PACKAGES.index(package) + 1 :])
    files = [*(ROOT / "dap" / package).rglob("*.py")]
    assert files
    modules = {(*module, name) for path in files for module, name in imports(path)}
    assert not [module for module in modules if module[0] == "dap" and module[1] in below]


def test_no_private_name_is_imported():
    folders = ("dap", "projects")
    private = [
        f"{path.relative_to(ROOT)}: {'.'.join(module)}.{name}"
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for module, name in imports(path)
        # dap._requirements and the like are modules of the package itself
        if module[:1] == ("dap",) and len(module) > 1 and re.match(r"_[^_]", name)
    ]
    assert private == []
