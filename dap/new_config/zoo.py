"""Detectors by the names of MMDetection's config folder, or by a config file."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.utils import get_installed_path

_PREFIX = "mmdet::"
# Where a name stops to say which detector it is: 8xb32-300e, ms-3x, 1x, 90k, coco.
_SCHEDULE = re.compile(r"_(?:\d+xb\d+|(?:[a-z]+-)*\d+(?:x|e|k)(?:[-_]|$)|coco|lvis|voc).*")


class Detector(NamedTuple):
    """The config that a new config inherits from.

    Attributes:
        base: For ``_base_``: ``mmdet::…``, or the path of a file.
        name: What files about it are called, such as ``rtmdet_tiny``.
        config: Its content.
    """

    base: str
    name: str
    config: Config

    def base_for(self, folder: Path) -> str:
        """``_base_`` of a config in a folder."""
        if self.base.startswith(_PREFIX):
            return self.base
        return Path(os.path.relpath(self.base, folder)).as_posix()


def find_detector(name: str) -> Detector:
    """Find the config of a detector.

    Args:
        name: A config file, or a name of MMDetection's config folder, with or without ``mmdet::``,
            folder and ``.py``: ``rtmdet_tiny_8xb32-300e_coco``.

    Returns:
        The detector.

    Raises:
        ValueError: If there is none; the message has the nearest names. If the config cannot be
            read, or has no model.
    """
    if Path(name).is_file():
        return _read(name, name)
    matches = [path for path in zoo() if _is_meant(path, name)]
    if len(matches) > 1:
        raise ValueError(f"{name} may be {', '.join(matches)}; name it with its folder")
    if not matches:
        raise ValueError(f"{name} is no file and no config of MMDetection. {_nearest(name)}")
    return _read(matches[0], _PREFIX + matches[0])


def zoo() -> list[str]:
    """Paths of MMDetection's configs below its config folder, those of ``_base_`` left out."""
    folder = _folder()
    paths = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.py")))
    return [path for path in paths if not path.startswith("_base_")]


def _folder() -> Path:
    return Path(get_installed_path("mmdet")) / ".mim" / "configs"


def _is_meant(path: str, name: str) -> bool:
    wanted = name.removeprefix(_PREFIX).removesuffix(".py")
    known = path.removesuffix(".py")
    return known == wanted or known.rsplit("/", 1)[-1] == wanted


def _nearest(name: str) -> str:
    stems = [Path(path).stem for path in zoo()]
    wanted = Path(name.removeprefix(_PREFIX)).name.removesuffix(".py")
    starting = [stem for stem in stems if stem.startswith(wanted)]
    near = starting[:5] or difflib.get_close_matches(wanted, stems, n=5, cutoff=0.4)
    listed = f"Nearest names: {', '.join(near)}" if near else "No name is near"
    return f"{listed}. All are in {_folder()}"


def _read(path: str, base: str) -> Detector:
    file = _folder() / path if base.startswith(_PREFIX) else Path(path)
    try:
        config = Config.fromfile(file)
    except (ImportError, SyntaxError, OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{file}: the config cannot be read ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(config.get("model"), dict):
        raise ValueError(f"{file} has no `model`; found {sorted(config)}. Name a detector's config")
    if config.get("train_dataloader") is None:
        raise ValueError(
            f"{file} has no train_dataloader, so that no pipeline is known; expected the config of "
            "a training"
        )
    return Detector(base, _SCHEDULE.sub("", file.stem) or file.stem, config)
