"""What MMEngine leaves in a work directory: the configs and the total batch that a run had."""

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
_HEAD = 1 << 20  # bytes of a log in which its head is


def training_configs(folder: Path, name: str) -> list[dict[str, Any]]:
    """Configs of the starts that led to what a training has written, the first one first.

    A start that resumed goes on with the one before it. Each config has the ``total_batch`` that
    it was run with, ``'unknown'`` where neither log nor config say it, and the ``load_from`` of
    the first one: a resumed start has none. Where no log of a start is left, the config in the
    folder itself is all there is.

    Args:
        folder: Work directory.
        name: File of the config that MMEngine writes there.

    Returns:
        None of them if there is no config.
    """
    starts: list[dict[str, Any]] = []
    for start in reversed(training_starts(folder)):
        config = _read(start / "vis_data" / "config.py")
        config["total_batch"] = _total_batch(config, _processes(start))
        starts.insert(0, config)
        if not config.get("resume"):
            break
    if not starts and (folder / name).exists():
        config = _read(folder / name)
        config["total_batch"] = _total_batch(config, None)
        starts = [config]
    if starts and starts[0].get("resume"):
        starts[0]["load_from"] = UNKNOWN
    for config in starts[1:]:
        config["load_from"] = starts[0].get("load_from")
    return starts


def training_starts(folder: Path) -> list[Path]:
    """Folders ``<timestamp>`` of the trainings in a work directory, by time; tests are none."""
    needed = ("scalars.json", "config.py")
    return [
        start
        for start in run_folders(folder)
        if all((start / "vis_data" / name).exists() for name in needed)
    ]


def run_folders(folder: Path) -> list[Path]:
    """Folders ``<timestamp>`` of all runs of MMEngine in a work directory, by time."""
    return sorted(path for path in folder.glob("*") if _TIMESTAMP.fullmatch(path.name))


def test_config(result: Path, folder: Path, name: str) -> dict[str, Any] | None:
    """The config of a test: that beside its result, or the last one in its work directory.

    Args:
        result: What the test has written.
        folder: Its work directory.
        name: File of the config that MMEngine writes there.
    """
    for path in (result.parent / "vis_data" / "config.py", folder / name):
        if path.exists() and path.stat().st_size:
            return _read(path)
    return None


def in_any_place(config: Mapping[str, Any], folder: Path, below: str) -> dict[str, Any]:
    """A config whose paths below the work directory of all results begin with ``work_dirs``.

    Args:
        config: A config of a run.
        folder: Work directory of the run, as the config's paths have it.
        below: Path of the folder below the work directory of all results.
    """
    root = work_root(folder, below)
    moved: dict[str, Any] = moved_paths(dict(config), root or ".", "work_dirs")
    return moved


def work_root(folder: Path, below: str) -> str | None:
    """The work directory of all results, of which ``folder`` is a part; None if it is not."""
    parts = Path(below).parts
    if folder.parts[-len(parts) :] != parts:
        return None
    return str(Path(*folder.parts[: -len(parts)]))


def moved_paths(value: Any, then: str, now: str) -> Any:
    """Replace the beginning of all paths below a folder in nested dicts and lists."""
    if isinstance(value, Mapping):
        return {key: moved_paths(child, then, now) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [moved_paths(child, then, now) for child in value]
    if isinstance(value, str) and then != "." and value.startswith(f"{then}/"):
        return str(Path(now) / value.removeprefix(f"{then}/"))
    return value


def _read(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return copy.deepcopy(_parsed(path.absolute(), stat.st_size, stat.st_mtime_ns))


@cache
def _parsed(path: Path, size: int, mtime_ns: int) -> dict[str, Any]:
    """Read a config, which takes a tenth of a second, once while it is not written again."""
    config: dict[str, Any] = Config.fromfile(path, import_custom_modules=False).to_dict()
    return config


def _processes(start: Path) -> int | None:
    """Processes of a start by its log; None if it has no log that says it."""
    log = start / f"{start.name}.log"
    if not log.exists():
        return None
    with open(log, "rb") as file:
        match = _PROCESSES.search(file.read(_HEAD).decode("utf-8", "replace"))
    return int(match[1]) if match else None


def _total_batch(config: Mapping[str, Any], processes: int | None) -> Any:
    """Images of an iteration, all processes together."""
    size = (config.get("train_dataloader") or {}).get("batch_size")
    if isinstance(size, int) and processes is not None:
        return size * processes
    if config.get("total_batch") is not None:
        return config["total_batch"]
    if isinstance(size, int) and config.get("launcher") == "none":
        return size
    return UNKNOWN
