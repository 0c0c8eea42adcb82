"""Find the configs and tools that belong to DAP."""

from __future__ import annotations

from pathlib import Path


def shipped_folder(name: str) -> Path:
    """Folder ``configs`` or ``tools`` of the clone, or else of the installed package."""
    package = Path(__file__).resolve().parents[1]
    in_clone = (package.parent / "pyproject.toml").exists()
    return package.parent / name if in_clone else package / ".mim" / name


def tools_folder() -> Path:
    """Folder of the tools, as a path for commands."""
    return from_here(shipped_folder("tools"))


def from_here(path: Path) -> Path:
    """Make a path relative if it is below the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
