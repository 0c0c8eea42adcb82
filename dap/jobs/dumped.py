"""Read what MMEngine writes to a work directory: the configs and the total batch of a run."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

UNKNOWN = "unknown"
_TIMESTAMP = re.compile(r"\d{8}_\d{6}")
_PROCESSES = re.compile(r"^\s*GPU number: (\d+)\s*$", re.MULTILINE)  # in MMEngine's log: world size
_HEAD = 1 << 20  # bytes of a log that contain its head


def training_configs(folder: Path, name: str) -> list[dict[str, Any]]:
    """Read the configs of a training and of the starts that it resumed, first start first.

    ``total_batch`` of each config is the one that it was run with, or ``'unknown'`` if neither log
    nor config state it. ``load_from`` is that of the first start, since resumed ones have none. If
    no log of a start exists, the config in the folder itself is read.

    Args:
        folder: Work directory.
        name: File name of the config that MMEngine writes there.

    Returns:
        The configs; empty if there is none.
    """
    starts: list[dict[str, Any]] = []
    for start in reversed(training_starts(folder)):
        config = _read(start / "vis_data" / "config.py")
        config["total_batch"] = _total_batch(config, _processes(start))
        starts.insert(0, config)
        if not config.get("resume"):
            break
    dumped = folder / name
    if not starts and dumped.exists() and dumped.stat().st_size:  # empty: killed while writing
        config = _read(dumped)
        config["total_batch"] = _total_batch(config, None)
        starts = [config]
    if starts and starts[0].get("resume"):
        starts[0]["load_from"] = UNKNOWN
    for config in starts[1:]:
        config["load_from"] = starts[0].get("load_from")
    return starts


def training_starts(folder: Path) -> list[Path]:
    """List the folders ``<timestamp>`` of all trainings in a work directory, by time."""
    needed = ("scalars.json", "config.py")
    return [
        start
        for start in run_folders(folder)
        if all((start / "vis_data" / name).exists() for name in needed)
    ]


def run_folders(folder: Path) -> list[Path]:
    """List the folders ``<timestamp>`` of all runs of MMEngine in a work directory, by time."""
    return sorted(path for path in folder.glob("*") if _TIMESTAMP.fullmatch(path.name))


def test_config(result: Path, folder: Path, name: str) -> dict[str, Any] | None:
    """Read the config of a test, beside its result or from its work directory.

    Args:
        result: File that the test has written.
        folder: Work directory of the test.
        name: File name of the config that MMEngine writes there.
    """
    for path in (result.parent / "vis_data" / "config.py", folder / name):
        if path.exists() and path.stat().st_size:
            return _read(path)
    return None


def in_any_place(config: Mapping[str, Any], folder: Path, below: str) -> dict[str, Any]:
    """Replace the root of all work directories by ``work_dirs`` in the paths of a config.

    Configs of the same run in different places become equal.

    Args:
        config: Config of a run.
        folder: Work directory of the run, as the config's paths have it.
        below: Path of the work directory, relative to the root of all work directories.
    """
    root = work_root(folder, below)
    moved: dict[str, Any] = moved_paths(dict(config), root or ".", "work_dirs")
    return moved


def work_root(folder: Path, below: str) -> str | None:
    """Root of all work directories: ``folder`` without its suffix ``below``; None without it."""
    parts = Path(below).parts
    if folder.parts[-len(parts) :] != parts:
        return None
    return str(Path(*folder.parts[: -len(parts)]))


def moved_paths(value: Any, old_root: str, new_root: str) -> Any:
    """Replace the root of all paths below ``old_root`` in nested dicts and lists."""
    if isinstance(value, Mapping):
        return {key: moved_paths(child, old_root, new_root) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [moved_paths(child, old_root, new_root) for child in value]
    if isinstance(value, str) and old_root != "." and value.startswith(f"{old_root}/"):
        return str(Path(new_root) / value.removeprefix(f"{old_root}/"))
    return value


def _read(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return copy.deepcopy(_parsed(path.absolute(), stat.st_size, stat.st_mtime_ns))


@cache
def _parsed(path: Path, size: int, mtime_ns: int) -> dict[str, Any]:
    """Read a config and cache it until the file changes; reading takes a tenth of a second."""
    config: dict[str, Any] = Config.fromfile(path, import_custom_modules=False).to_dict()
    return config


def _processes(start: Path) -> int | None:
    """Number of processes of a start according to its log; None if it is not known."""
    log = start / f"{start.name}.log"
    if not log.exists():
        return None
    with open(log, "rb") as file:
        match = _PROCESSES.search(file.read(_HEAD).decode("utf-8", "replace"))
    return int(match[1]) if match else None


def _total_batch(config: Mapping[str, Any], processes: int | None) -> Any:
    """Images per iteration of all processes together; ``'unknown'`` if nothing states it."""
    size = (config.get("train_dataloader") or {}).get("batch_size")
    if isinstance(size, int) and processes is not None:
        return size * processes
    if config.get("total_batch") is not None:
        return config["total_batch"]
    if isinstance(size, int) and config.get("launcher") == "none":
        return size
    return UNKNOWN
