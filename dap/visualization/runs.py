"""Read work directories of MMEngine as runs, and group runs that differ only in their seed."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError

from .config_difference import SEED, draw_of, result_values, same_training_key, shots_of
from .curves import read_log

SHOTS = re.compile(r"[-_]?\d+[-_]?shot")
# What executing a damaged file may end with.
CONFIG_ERRORS = (
    *(SyntaxError, NameError, TypeError, ValueError, AttributeError, KeyError, ImportError),
    *(OSError, ConfigParsingError),
)


@dataclass(frozen=True)
class LoggedRun:
    """A training, or a test, in a work directory.

    Attributes:
        folder: The work directory.
        validations: Its results by iteration, see `dap.visualization.curves.Log`.
        tested: Results of its last test, under their names there; read where there is no
            validation.
        iterations: How far it was trained by its log; 0 for a test alone.
        config: As MMEngine dumped it; None if there is none, or it is empty.
        notes: What to say of its files.
    """

    folder: Path
    validations: list[dict[str, float]]
    tested: dict[str, float]
    iterations: int
    config: Mapping[str, Any] | None
    notes: tuple[str, ...] = ()

    @property
    def figures_of(self) -> str:
        """``'validation'`` or ``'test'``."""
        return "validation" if self.validations else "test"

    @property
    def values(self) -> dict[str, Any] | None:
        """What of the config decides the figures, see `result_values`."""
        return None if self.config is None else result_values(self.config, self.figures_of)

    @property
    def shots(self) -> int | None:
        """Images per class; None if it was not trained on a k-shot set."""
        return None if self.config is None else shots_of(self.config)

    @property
    def seed(self) -> str:
        """Seed, with that of the draw where it is another one; ``'unknown'`` if none was set."""
        randomness = (self.config or {}).get("randomness") or {}
        seed = randomness.get("seed")
        draw = None if self.config is None else draw_of(self.config)
        text = "unknown" if seed is None else str(seed)
        return text if draw is None or str(draw) == text else f"{text} (draw {draw})"


@dataclass
class Group:
    """Runs that should differ only in their seed.

    Attributes:
        name: Of the initialisation; groups of other numbers of shots may share it.
        shots: Images per class of k-shot runs.
        runs: At least one.
    """

    name: str
    shots: int | None
    runs: list[LoggedRun] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Name for people: ``'DAP 5-shot'``."""
        return self.name if self.shots is None else f"{self.name} {self.shots}-shot"

    @property
    def values(self) -> dict[str, Any] | None:
        """The values of the first run that has a config."""
        return next((run.values for run in self.runs if run.config is not None), None)


def read_run(folder: Path) -> LoggedRun:
    """Read a work directory.

    Raises:
        ValueError: If it has no result, or a file of it cannot be read; the folder is named.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; expected the work directory of a run")
    logs = sorted(folder.glob("*/vis_data/scalars.json"))
    tests = sorted(
        (p for place in ("*", "test/*") for p in folder.glob(f"{place}/*.json")),
        key=lambda path: path.stem,
    )
    tests = [path for path in tests if path.stem == path.parent.name]
    if not logs and not tests:
        raise ValueError(
            f"{folder} holds neither <timestamp>/vis_data/scalars.json, the log of a training, nor "
            "<timestamp>/<timestamp>.json, the result of a test. Name the work directory of one "
            "run, the folder above <timestamp>"
        )
    log = read_log(folder) if logs else None
    validations = log.validations if log else []
    tested = {} if validations or not tests else _read_test(tests[-1])
    notes = [
        f"the last line of {file} was cut off, as when a run is killed; it is left out"
        for file in (log.cut_off if log else ())
    ]
    if log and log.without_result:
        notes.append(
            f"validated at iteration {', '.join(map(str, log.without_result))} without a figure, "
            "as when nothing is detected; it is left out"
        )
    if not validations and not tested:
        raise ValueError(
            f"{folder} holds no result: its {len(logs)} log(s) have no figure of a validation, and "
            f"there is no test of it. {'; '.join(notes) or 'It was ended before its first one'}, "
            "or val_cfg is None. Validate or test it, or leave it out"
        )
    config = _read_config(folder, logs or tests)
    return LoggedRun(
        folder, validations, tested, log.iterations if log else 0, config, tuple(notes)
    )


def group_runs(arguments: Sequence[str]) -> list[Group]:
    """Read runs and group those that differ only in their seed.

    Args:
        arguments: Work directories, or ``NAME=DIR,DIR…`` for a group of one's own; patterns after
            a name are expanded. A named group of runs with several numbers of images per class
            is one group for each of these numbers. Folders without a name are grouped by their
            configs and named by their own names, seed and number of shots left out.

    Returns:
        Groups in the order of the arguments.

    Raises:
        ValueError: If a folder is given twice, has no result or an unreadable file, or two groups
            would have the same name.
    """
    groups: dict[tuple[str, str, int | None], Group] = {}
    for name, folder in _folders(arguments):
        run = read_run(folder)
        key = "" if name else _training_key(run)
        groups.setdefault((name, key, run.shots), Group(name, run.shots)).runs.append(run)
    _name_groups(list(groups.values()))
    return list(groups.values())


def _training_key(run: LoggedRun) -> str:
    """The same for runs that differ in their seed alone; without a config, by their names."""
    values = run.values
    return _name(run.folder, 1) if values is None else same_training_key(values)


def _folders(arguments: Sequence[str]) -> list[tuple[str, Path]]:
    """Name, or '', and folder of each run."""
    folders: list[tuple[str, Path]] = []
    for argument in arguments:
        name, sign, parts = argument.partition("=")
        if not sign or Path(argument).exists():
            folders.append(("", Path(argument)))
            continue
        patterns = [part for part in parts.split(",") if part]
        if not name or not patterns:
            raise ValueError(f"{argument}: expected a work directory, or NAME=DIR,DIR…")
        folders += [(name, Path(p)) for part in patterns for p in sorted(glob.glob(part)) or [part]]
    seen: dict[Path, Path] = {}
    for _, folder in folders:
        if folder.resolve() in seen:
            raise ValueError(
                f"{folder} is given twice; a run counted twice would make the deviation too small. "
                "Name it once"
            )
        seen[folder.resolve()] = folder
    return folders


def _name(folder: Path, parts: int) -> str:
    """The last parts of a path that say more than a seed or a number of shots."""
    names = (SHOTS.sub("", SEED.sub("", name)) for name in folder.resolve().parts[1:])
    return "/".join([name for name in names if name][-parts:])


def _name_groups(groups: Sequence[Group]) -> None:
    """Give names to groups without one: as much of their paths as tells them apart."""
    waiting = [group for group in groups if not group.name]
    given = {(group.name, group.shots) for group in groups if group.name}
    longest = max((len(group.runs[0].folder.resolve().parts) for group in waiting), default=1)
    for parts in range(1, longest + 1):
        names = [(_name(group.runs[0].folder, parts), group.shots) for group in waiting]
        if len(set(names)) == len(names) and not given.intersection(names):
            break
    else:
        raise ValueError(
            f"the configs of {', '.join(str(group.runs[0].folder) for group in waiting)} differ in "
            "more than their seed, and two of these would have the same name. Name them: "
            "NAME=DIR,DIR…"
        )
    for group, (name, _) in zip(waiting, names, strict=True):
        group.name = name


def _read_test(path: Path) -> dict[str, float]:
    try:
        content = json.loads(path.read_text())
        return {k: v for k, v in content.items() if isinstance(v, int | float)}
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected the results of a test as a JSON object, found other content "
            f"({error}). Test again, or remove the file"
        ) from error


def _read_config(folder: Path, results: Sequence[Path]) -> Mapping[str, Any] | None:
    """The config of the last of a run's results; ``load_from`` is that of its first start."""
    dumped = [
        *(path.with_name("config.py") for path in results if path.name == "scalars.json"),
        *(path.parent / "vis_data/config.py" for path in results if path.name != "scalars.json"),
    ]
    configs = [path for path in dumped if path.exists() and path.stat().st_size]
    configs = configs or sorted(folder.glob("*.py"), key=lambda path: path.stat().st_mtime)
    if not configs:
        return None
    config = _parse(configs[-1])
    if config.get("resume"):  # which takes the place of load_from
        config["load_from"] = _parse(configs[0]).get("load_from")
    return config or None


def _parse(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = Config.fromfile(path, import_custom_modules=False).to_dict()
        return config
    except CONFIG_ERRORS as error:
        raise ValueError(
            f"{path} cannot be read as a config ({type(error).__name__}: {error}). MMEngine writes "
            "it at the start of a run; put the run's config there, or remove the file to compare "
            "without it"
        ) from error
