"""Find detectors by the names of MMDetection's configs, or by a config file."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from mmengine.utils import get_installed_path

_PREFIX = "mmdet::"
# Parts of a name that describe the training, not the detector: 8xb32-300e, ms-3x, 1x, 90k, coco.
_SCHEDULE = re.compile(r"_(?:\d+xb\d+|(?:[a-z]+-)*\d+(?:x|e|k)(?:[-_]|$)|coco|lvis|voc).*")


class Detector(NamedTuple):
    """The config that a new config inherits from.

    Attributes:
        base: Value for ``_base_``: ``mmdet::…``, or the path of a file.
        name: Short name for new files, such as ``rtmdet_tiny``.
        config: Content of the config.
    """

    base: str
    name: str
    config: Config

    def base_for(self, folder: Path) -> str:
        """``_base_`` for a config in a folder."""
        if self.base.startswith(_PREFIX):
            return self.base
        return Path(os.path.relpath(self.base, folder)).as_posix()


def find_detector(name: str) -> Detector:
    """Find the config of a detector.

    Args:
        name: A config file, or the name of one of MMDetection's configs, with or without
            ``mmdet::``, folder and ``.py``: ``rtmdet_tiny_8xb32-300e_coco``.

    Returns:
        The detector.

    Raises:
        ValueError: If there is no such config (the message lists similar names), or it cannot be
            read or has no model.
    """
    if Path(name).is_file():
        return _read(name, name)
    matches = [path for path in zoo() if _has_name(path, name)]
    if len(matches) > 1:
        raise ValueError(f"{name} may be {', '.join(matches)}; give its folder, too")
    if not matches:
        raise ValueError(f"{name} is neither a file nor a config of MMDetection. {_nearest(name)}")
    return _read(matches[0], _PREFIX + matches[0])


def zoo() -> list[str]:
    """List MMDetection's configs by their paths in its config folder, without ``_base_``."""
    folder = _folder()
    paths = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.py")))
    return [path for path in paths if not path.startswith("_base_")]


def _folder() -> Path:
    return Path(get_installed_path("mmdet")) / ".mim" / "configs"


def _has_name(path: str, name: str) -> bool:
    name = name.removeprefix(_PREFIX).removesuffix(".py")
    path = path.removesuffix(".py")
    return name in (path, path.rsplit("/", 1)[-1])


def _nearest(name: str) -> str:
    stems = [Path(path).stem for path in zoo()]
    stem = Path(name.removeprefix(_PREFIX)).name.removesuffix(".py")
    extended = [known for known in stems if known.startswith(stem)]
    near = extended[:5] or difflib.get_close_matches(stem, stems, n=5, cutoff=0.4)
    listed = f"Similar names: {', '.join(near)}" if near else "No name is similar"
    return f"{listed}. All configs are in {_folder()}"


def _read(path: str, base: str) -> Detector:
    file = _folder() / path if base.startswith(_PREFIX) else Path(path)
    try:
        config = Config.fromfile(file)
    except (ImportError, SyntaxError, OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{file}: the config cannot be read ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(config.get("model"), dict):
        raise ValueError(f"{file} has no `model`; found {sorted(config)}. Give a detector's config")
    if config.get("train_dataloader") is None:
        raise ValueError(
            f"{file} has no train_dataloader, so its pipeline is not known; expected the config of "
            "a training"
        )
    return Detector(base, _SCHEDULE.sub("", file.stem) or file.stem, config)
