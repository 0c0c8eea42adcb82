"""Find configs by name, and the files of other runs that they read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from dap.comparison.config_difference import leaves
from dap.jobs.shipped import shipped_folder

READ_BY_TRAINING = ("model", "train_dataloader", "load_from")


class ConfigTree:
    """The configs of ``dap`` by their base names; another folder may override some of them.

    Args:
        overrides: Folder with configs that replace those of the same names. It has the same
            subfolders (``pretrain``, ``finetune/voc07``, …).

    Raises:
        ValueError: If ``overrides`` has no config, or two of the same name.
    """

    def __init__(self, overrides: str | Path | None = None) -> None:
        self._roots: dict[str, tuple[Path, Path]] = {}  # name → root, path below it
        roots = [shipped_folder("configs"), *([Path(overrides).resolve()] if overrides else [])]
        for root in roots:
            self._roots |= _named_configs(root)

    def __contains__(self, name: str) -> bool:
        return name in self._roots

    def path(self, name: str) -> Path:
        """Path of a config.

        Raises:
            ValueError: If there is no config of this name.
        """
        if name not in self._roots:
            similar = ", ".join(get_close_matches(name, self._roots)) or "none"
            raise ValueError(f"no config {name}.py; configs of similar names: {similar}")
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


def work_dir_paths(config: Config) -> dict[str, str]:
    """List the annotation files and checkpoints that a training reads.

    Args:
        config: Config of a training.

    Returns:
        Key, as ``--cfg-options`` takes it → path. URLs are left out.
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
                f"{root / path} and {root / by_name[path.stem][1]} have the same name, but the "
                "names of configs identify runs. Rename one"
            )
        by_name[path.stem] = (root, path)
    if not by_name:
        raise ValueError(f"{root} has no config; expected *.py in it or its subfolders")
    return by_name


@cache
def _read(path: str) -> Config:
    """Read a config.

    To resolve a base ``'mmdet::…'``, MMEngine reads all metafiles of mmdet and lists the installed
    packages, which takes half a second. The result is cached here. ``_get_cfg_path`` is private to
    MMEngine; should it be renamed, ``Config.fromfile`` alone does the same, only slower.
    """
    find = Config._get_cfg_path
    Config._get_cfg_path = staticmethod(
        lambda base, file: _cached_path(find, base) if "::" in base else find(base, file)
    )
    try:
        return Config.fromfile(path, import_custom_modules=False)
    finally:
        Config._get_cfg_path = staticmethod(find)


@cache
def _cached_path(find: Callable[[str, str], Any], base: str) -> Any:
    return find(base, "")
