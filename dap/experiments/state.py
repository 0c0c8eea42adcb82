"""Decide whether a job is finished: its result exists, with these settings and these inputs.

Settings are compared with the config that MMEngine or Step 2 left beside the result, inputs by
their digests in the record that ``tools/reproduce.py`` leaves (see :mod:`.records`). Of a result
that was made by hand there is no record: its settings alone are compared, paths of its inputs among
them, and :func:`finished_line` says so. No date of a file is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from dap.store.reader import MANIFEST, SUMMARY, read_manifest
from dap.visualization.config_difference import TEST, TRAINING, deciding_values, is_initialisation
from dap.visualization.config_difference import differences as value_differences

from .dumped import (
    UNKNOWN,
    in_any_place,
    run_folders,
    test_config,
    training_configs,
    training_starts,
)
from .jobs import Job
from .records import changed_inputs, is_open, recorded_inputs, result_folder

REPEATED = ("test", "predict")  # what takes minutes: made again where it is of something else
SAME_BOXES = ("classifier", "image_list")  # parts of a manifest that a choice from its boxes keeps


def is_finished(job: Job) -> bool:
    """Tell whether a job is finished.

    A test, or predictions, are repeated where they are of other settings or of another checkpoint.
    All else of other settings or inputs is refused.

    Raises:
        ValueError: If there is a result that is not of this job.
    """
    made = latest_result(job)
    if job.kind in REPEATED:
        return made is not None and _config_of_test(job, made) != {} and not test_problem(job, made)
    if job.kind == "train":
        made = made if made is not None and _ended(Path(made)) else None
        _check_training(job, made)
    if made is None:
        return False
    if job.kind == "boxes" and not _is_same_boxes(job, Path(made).parent):
        return False
    _check_inputs(job, made)
    return True


def is_begun(job: Job) -> bool:
    """Whether there is an unfinished training to resume."""
    return job.kind == "train" and (Path(job.makes).parent / "last_checkpoint").exists()


def latest_result(job: Job) -> str | None:
    """What shows that a job is finished, the last by name of several: MMEngine names by time."""
    return max(glob(job.makes), default=None)


def finished_line(job: Job) -> str:
    """Say that a job is finished, and what was not compared of a result that was made by hand."""
    line = f"# {job.name} is finished: {job.makes}"
    made = latest_result(job)
    if made is None or job.kind == "boxes" or recorded_inputs(job, made) is not None:
        return line
    compared = "its settings alone are compared" if job.config else "nothing is compared"
    return f"{line} (no record of its inputs, as of one made by hand: {compared})"


def missing_inputs(jobs: list[Job]) -> list[str]:
    """Files that jobs read, that do not exist, and that no job makes.

    What an annotation file that is there was made from is not needed.
    """
    waiting = [job for job in jobs if job.kind != "files" or not Path(job.makes).exists()]
    paths = dict.fromkeys(path for job in waiting for path in job.inputs if path not in job.reads)
    return [path for path in paths if not Path(path).exists()]


def differences(
    expected: Mapping[str, Any], found: Mapping[str, Any], parts: Sequence[str] = TRAINING
) -> list[str]:
    """Differences between two configs that change the result.

    A total batch that a training by hand does not say is unknown, and unknown is not equal.

    Returns:
        ``'key: found there, expected now'``, sorted.
    """
    now, then = (deciding_values(config, parts) for config in (expected, found))
    if parts == TEST:  # of given weights: where they began does not matter
        now, then = ({k: v[k] for k in v if not is_initialisation(k)} for v in (now, then))
    if "total_batch" in now:
        then.setdefault("total_batch", UNKNOWN)
    if found.get("resume"):  # mmdet empties load_from then
        now.pop("load_from", None)
        then.pop("load_from", None)
    return [
        f"{d.key}: {d.reference!r} there, {d.other!r} now" for d in value_differences(then, now)
    ]


def test_problem(job: Job, made: str) -> str:
    """Say why a test, or predictions, are not of this job; ``''`` if they are, as far as is known.

    Args:
        job: The test.
        made: Its result. Where no config is beside it, its settings are not compared.
    """
    assert job.config is not None
    config = _config_of_test(job, made)
    expected = in_any_place(job.config.to_dict(), result_folder(job), job.name)
    differing = differences(expected, config, TEST) if config else []
    if differing:
        return f"{made} is of other settings ({_first(differing)})"
    if is_open(job):
        return f"{made} is of an earlier run: a later one was begun and did not end"
    recorded = recorded_inputs(job, made)
    if recorded is not None:
        changed = changed_inputs(job.compared, recorded)
        return f"{made} is of other inputs: {_first(changed)}" if changed else ""
    return _problem_by_hand(job, made, config)


def _config_of_test(job: Job, made: str) -> dict[str, Any]:
    """The config of a test; empty if there is none."""
    assert job.config is not None
    folder = result_folder(job)
    config = test_config(Path(made), folder, Path(str(job.config.filename)).name)
    return _there(config or {}, job)


def _there(config: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """A config as it was dumped, wherever its work directory was then."""
    return in_any_place(config, Path(config.get("work_dir") or ""), job.name)


def _problem_by_hand(job: Job, made: str, config: Mapping[str, Any]) -> str:
    """Of a test without a record, its config names the checkpoint; a later training is another."""
    checkpoint = next((path for path in job.inputs if path.endswith(".pth")), None)
    if checkpoint is None:
        return ""
    expected = in_any_place({"load_from": checkpoint}, result_folder(job), job.name)["load_from"]
    tested = config.get("load_from")
    if tested and Path(tested).absolute() != Path(expected).absolute():
        return f"{made} is of another checkpoint: {tested} there, {expected} now"
    trained = [start.name for start in training_starts(Path(checkpoint).parent)]
    tests = [start.name for start in run_folders(result_folder(job))]
    if trained and tests and trained[-1] > tests[-1]:
        return f"{made} was made before the training {trained[-1]} of {checkpoint} began"
    return ""


def _check_training(job: Job, made: str | None) -> None:
    assert job.config is not None
    folder = Path(job.makes).parent
    name = Path(str(job.config.filename)).name
    configs = training_configs(folder, name)
    if not configs:
        if glob(str(folder / "*.pth")):
            raise ValueError(
                f"{folder} has checkpoints but no {name}, the config that MMEngine writes: "
                "where they are from is not known. Move the folder away, or name another --work-dir"
            )
        return
    expected = in_any_place(job.config.to_dict(), folder, job.name)
    expected["total_batch"] = expected.get("total_batch") or job.batch or None
    recorded = recorded_inputs(job, made)
    for config in configs:
        known = recorded is not None or not expected.get("load_from")  # its content is compared
        if config.get("load_from") == UNKNOWN and known:
            config["load_from"] = expected.get("load_from")
        config["resume"] = False  # load_from is that of the first start
        differing = differences(expected, _there(config, job))
        if differing:
            raise ValueError(
                f"{folder} is of other settings ({_first(differing)}). Nothing of it is touched; "
                "move it away, or name another --work-dir"
            )
    if made is None and is_begun(job):
        _check_inputs(job, None)


def _check_inputs(job: Job, made: str | None) -> None:
    """Compare digests: of the result, or of the training that was begun.

    Raises:
        ValueError: If one differs.
    """
    recorded = recorded_inputs(job, made)
    if recorded is None:
        return
    # Boxes come to the same in two ways, and a record has the inputs of the one it went.
    known = [path for path in job.compared if job.kind != "boxes" or path in recorded]
    changed = changed_inputs([p for p in known if not _is_source(job, p)], recorded)
    if changed:
        raise ValueError(
            f"{made or result_folder(job)} was made from other inputs than there are now: "
            f"{_first(changed)}. Move it away to have it made again, or bring back what it was "
            "made from"
        )


def _is_source(job: Job, path: str) -> bool:
    """Whether a path is the store that boxes are chosen from: their manifests are compared."""
    return job.kind == "boxes" and Path(path).name == MANIFEST


def _is_same_boxes(job: Job, folder: Path) -> bool:
    """Compare settings; a run that was killed before its end is for the tool to go on with."""
    assert job.settings is not None
    manifest = read_manifest(folder) or {}
    if "shards" not in manifest or not (folder / SUMMARY).exists():
        return False
    stored, expected = manifest["settings"], job.settings.as_json()
    if stored != expected:
        raise ValueError(
            f"{folder} holds boxes of other settings: {stored} there, {expected} now. "
            "Move it away, or name another --work-dir"
        )
    for source in (Path(path).parent for path in job.inputs if _is_source(job, path)):
        other = read_manifest(source) or {}
        for part in SAME_BOXES if "shards" in other else ():
            if _without_root(manifest.get(part)) != _without_root(other.get(part)):
                raise ValueError(
                    f"{folder} holds boxes of another {part} than {source}, which they would be "
                    f"chosen from: {manifest.get(part)} there, {other.get(part)} in {source}. "
                    "Move one of them away, or name another --work-dir"
                )
    return True


def _without_root(part: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (part or {}).items() if key != "root"}


def _ended(checkpoint: Path) -> bool:
    """MMEngine notes a checkpoint when all of it is written."""
    note = checkpoint.with_name("last_checkpoint")
    return note.exists() and Path(note.read_text().strip()).name == checkpoint.name


def _first(items: Iterable[str], most: int = 4) -> str:
    named = list(items)
    more = f" and {len(named) - most} more" if len(named) > most else ""
    return "; ".join(named[:most]) + more
