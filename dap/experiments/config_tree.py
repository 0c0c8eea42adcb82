"""The configs of a folder tree by name, and what they read from files that other runs write."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from dap.visualization.config_difference import leaves

READ_BY_TRAINING = ("model", "train_dataloader", "load_from")


class ConfigTree:
    """The configs that came with ``dap``, found by their base name, and one's own in place of some.

    Args:
        own: Folder with configs that take the place of those of the same names, in the same
            folders (``pretrain``, ``finetune/voc07``, …).

    Raises:
        ValueError: If ``own`` holds no config, or there are two of one name.
    """

    def __init__(self, own: str | Path | None = None) -> None:
        self._roots: dict[str, tuple[Path, Path]] = {}  # name → root, path below it
        for root in (_shipped("configs"), *([Path(own).resolve()] if own else [])):
            self._roots |= _named_configs(root)

    def __contains__(self, name: str) -> bool:
        return name in self._roots

    def path(self, name: str) -> Path:
        """Path of a config.

        Raises:
            ValueError: If there is none of this name.
        """
        if name not in self._roots:
            near = ", ".join(get_close_matches(name, self._roots)) or "none near"
            raise ValueError(f"no config {name}.py; expected one that there is: {near}")
        root, path = self._roots[name]
        return root / path

    def folder(self, name: str) -> str:
        """Folder of a config in its tree: ``'finetune/voc07'``."""
        self.path(name)
        return self._roots[name][1].parent.as_posix()

    def load(self, name: str, options: Mapping[str, object] | None = None) -> Config:
        """Read a config and change the keys of ``options`` in it."""
        config = _read(str(self.path(name))).copy()
        config.merge_from_dict(dict(options or {}))
        return config


def tools_folder() -> Path:
    """The folder of the tools that belong to the shipped configs."""
    return from_here(_shipped("tools"))


def from_here(path: Path) -> Path:
    """A path as people would write it: relative if it is below the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def work_dir_paths(config: Config) -> dict[str, str]:
    """What a training reads from files that other steps make.

    Args:
        config: A config for training.

    Returns:
        Key, as ``--cfg-options`` takes it → path: annotations and checkpoints that are no URL.
    """
    paths = {}
    for part in READ_BY_TRAINING:
        for key, value in leaves(config.get(part), part):
            name = key.rsplit(".", 1)[-1]
            if isinstance(value, str) and name in ("ann_file", "checkpoint", "load_from"):
                paths[key] = value
    return {key: path for key, path in paths.items() if path and not re.match(r"\w+://", path)}


def _named_configs(root: Path) -> dict[str, tuple[Path, Path]]:
    by_name: dict[str, tuple[Path, Path]] = {}
    for path in sorted(path.relative_to(root) for path in root.rglob("*.py")):
        if "_base_" in path.parts:
            continue
        if path.stem in by_name:
            raise ValueError(
                f"{root / path} and {root / by_name[path.stem][1]} have the same name; runs are "
                "told apart by the names of their configs. Rename one"
            )
        by_name[path.stem] = (root, path)
    if not by_name:
        raise ValueError(f"{root} holds no config; expected *.py in it or below")
    return by_name


@cache
def _read(path: str) -> Config:
    """Read a config.

    For each base ``'mmdet::…'`` MMEngine reads all metafiles of mmdet and looks through what is
    installed, half a second each time; meanwhile, it looks once. Should ``_get_cfg_path``, a part
    of MMEngine's own, get another name, ``Config.fromfile`` alone does the same, only slower.
    """
    find = Config._get_cfg_path
    Config._get_cfg_path = staticmethod(
        lambda base, file: _find_once(find, base) if "::" in base else find(base, file)
    )
    try:
        return Config.fromfile(path, import_custom_modules=False)
    finally:
        Config._get_cfg_path = staticmethod(find)


@cache
def _find_once(find: Callable[[str, str], Any], base: str) -> Any:
    return find(base, "")


def _shipped(folder: str) -> Path:
    """Find a folder of the clone, or of the installed package."""
    package = Path(__file__).resolve().parents[1]
    in_clone = (package.parent / "pyproject.toml").exists()
    return package.parent / folder if in_clone else package / ".mim" / folder
