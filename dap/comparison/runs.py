"""Read MMEngine's work directories as runs, and group runs that differ only in their seed."""

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

from .config_difference import SEED, draw_of, result_values, same_training_key, shots_of, type_name
from .curves import Log, read_log

SHOTS = re.compile(r"[-_]?\d+[-_]?shot")
# Exceptions that a damaged config file may raise.
CONFIG_ERRORS = (
    *(SyntaxError, NameError, TypeError, ValueError, AttributeError, KeyError, ImportError),
    *(OSError, ConfigParsingError),
)


@dataclass(frozen=True)
class LoggedRun:
    """A training, or a test, in a work directory.

    Attributes:
        folder: The work directory.
        validations: Results of each validation, see `dap.comparison.curves.Log`.
        test_results: Results of the last test by their names; read if there is no validation.
        iterations: Iterations trained according to the log; 0 for a test alone.
        config: The config as MMEngine dumped it; None if it is missing or empty.
        notes: Remarks on the files, for the warnings of a report.
    """

    folder: Path
    validations: list[dict[str, float]]
    test_results: dict[str, float]
    iterations: int
    config: Mapping[str, Any] | None
    notes: tuple[str, ...] = ()

    @property
    def figures_of(self) -> str:
        """``'validation'`` or ``'test'``."""
        return "validation" if self.validations else "test"

    @property
    def values(self) -> dict[str, Any] | None:
        """Values of the config that decide the figures, see `result_values`."""
        return None if self.config is None else result_values(self.config, self.figures_of)

    @property
    def shots(self) -> int | None:
        """Images per class of a k-shot training set; None for other sets."""
        return None if self.config is None else shots_of(self.config)

    @property
    def seed(self) -> str:
        """Seed of the run, and of the k-shot draw if it differs; ``'unknown'`` if none was set."""
        randomness = (self.config or {}).get("randomness") or {}
        seed = randomness.get("seed")
        draw = None if self.config is None else draw_of(self.config)
        text = "unknown" if seed is None else str(seed)
        return text if draw is None or str(draw) == text else f"{text} (draw {draw})"


@dataclass
class Group:
    """Runs that should differ only in their seed.

    Attributes:
        name: Name of the initialisation; groups that differ in ``shots`` may share it.
        shots: Images per class of k-shot runs, else None.
        runs: One run or more.
    """

    name: str
    shots: int | None
    runs: list[LoggedRun] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Name in tables and curves: ``'DAP 5-shot'``."""
        return self.name if self.shots is None else f"{self.name} {self.shots}-shot"

    @property
    def values(self) -> dict[str, Any] | None:
        """The values of the first run that has a config."""
        return next((run.values for run in self.runs if run.config is not None), None)


def read_run(folder: Path) -> LoggedRun:
    """Read a work directory.

    A run is assigned AP 0 if no validation has detections, because MMDetection's COCO metric then
    writes no results.

    Raises:
        ValueError: If it has no result, or a file of it cannot be read. The message names the
            folder or file.
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
    log = read_log(folder) if logs else Log([], [], 0, [], [])
    config = _read_config(folder, logs or tests)
    validations = log.validations
    test_results = {} if validations or not tests else _read_test(tests[-1])
    notes = [
        f"the last line of {file} was cut off, as when a run is killed; it is left out"
        for file in log.cut_off
    ]
    without_result = ", ".join(map(str, log.without_result))
    zeros = {} if validations or test_results else _zero_results(config)
    if without_result and zeros:
        validations = [{"iteration": iteration, **zeros} for iteration in log.without_result]
        notes.append(
            f"no validation has a figure (iterations {without_result}), as when nothing is "
            "detected: each counts as AP 0"
        )
    elif without_result:
        notes.append(
            f"validated at iteration {without_result} without a figure, as when nothing is "
            "detected; it is left out"
        )
    if not validations and not test_results:
        raise ValueError(
            f"{folder} holds no result: its {len(logs)} log(s) have no figure of a validation, and "
            f"there is no test of it. {'; '.join(notes) or 'It was ended before its first one'}, "
            "or val_cfg is None. Validate or test it, or leave it out"
        )
    return LoggedRun(folder, validations, test_results, log.iterations, config, tuple(notes))


def _zero_results(config: Mapping[str, Any] | None) -> dict[str, float]:
    """Results of a validation without detections; empty if its metric is not COCO's alone."""
    evaluators = (config or {}).get("val_evaluator") or ()
    evaluators = [evaluators] if isinstance(evaluators, Mapping) else evaluators
    results: dict[str, float] = {}
    for evaluator in evaluators:
        if type_name(evaluator) != "CocoMetric" or evaluator.get("format_only"):
            return {}
        metric = evaluator.get("metric") or "bbox"
        metrics = {metric} if isinstance(metric, str) else set(metric)
        for kind in sorted(metrics & {"bbox", "segm"}):
            name = f"{evaluator.get('prefix') or 'coco'}/{kind}_mAP"
            results |= {name: 0.0, f"{name}_50": 0.0, f"{name}_75": 0.0}
    return results


def group_runs(arguments: Sequence[str]) -> list[Group]:
    """Read runs and group those that differ only in their seed.

    Args:
        arguments: Work directories, or ``NAME=DIR,DIR…`` for a named group. Patterns after a name
            are expanded. A named group is divided by the number of images per class. Folders
            without a name are grouped by their configs and named by their own names, without seed
            and number of shots.

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
    """Text that is equal for runs that differ only in their seed; a name if there is no config."""
    values = run.values
    return _name(run.folder, 1) if values is None else same_training_key(values)


def _folders(arguments: Sequence[str]) -> list[tuple[str, Path]]:
    """List the folder of each run with its name, or ''."""
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
    """The last parts of a path, without seeds and numbers of shots."""
    names = (SHOTS.sub("", SEED.sub("", name)) for name in folder.resolve().parts[1:])
    return "/".join([name for name in names if name][-parts:])


def _name_groups(groups: Sequence[Group]) -> None:
    """Name the groups without a name by the shortest ends of their paths that differ."""
    unnamed = [group for group in groups if not group.name]
    taken = {(group.name, group.shots) for group in groups if group.name}
    longest = max((len(group.runs[0].folder.resolve().parts) for group in unnamed), default=1)
    for parts in range(1, longest + 1):
        names = [(_name(group.runs[0].folder, parts), group.shots) for group in unnamed]
        if len(set(names)) == len(names) and not taken.intersection(names):
            break
    else:
        raise ValueError(
            f"the configs of {', '.join(str(group.runs[0].folder) for group in unnamed)} differ in "
            "more than their seed, and two of these would have the same name. Name them: "
            "NAME=DIR,DIR…"
        )
    for group, (name, _) in zip(unnamed, names, strict=True):
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
    """Read the config of the last result, with the ``load_from`` of the run's first start."""
    dumped = [
        *(path.with_name("config.py") for path in results if path.name == "scalars.json"),
        *(path.parent / "vis_data/config.py" for path in results if path.name != "scalars.json"),
    ]
    configs = [path for path in dumped if path.exists() and path.stat().st_size]
    configs = configs or sorted(folder.glob("*.py"), key=lambda path: path.stat().st_mtime)
    if not configs:
        return None
    config = _parse(configs[-1])
    if config.get("resume"):  # load_from is empty then
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
