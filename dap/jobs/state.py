"""Decide whether a job is finished: its result exists and has the same settings and inputs.

Settings are compared with the config that MMEngine or Step 2 writes beside the result. Inputs are
compared by the digests in the record that ``tools/reproduce.py`` writes (see :mod:`.records`). A
result that was made by hand has no record: only its settings are compared, including the paths of
its inputs, and :func:`finished_line` says so. Dates of files are not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from dap.comparison.config_difference import TEST, TRAINING, deciding_values, is_initialisation
from dap.comparison.config_difference import differences as value_differences
from dap.store.reader import MANIFEST, SUMMARY, read_manifest

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

REPEATED = ("test", "predict")  # kinds that take minutes: repeated if settings or inputs differ
SAME_BOXES = ("classifier", "image_list")  # parts of a manifest that a selection keeps


def is_finished(job: Job) -> bool:
    """Whether a job is finished.

    A test or predictions with other settings, or of another checkpoint, are not finished, so they
    are repeated. Other results with other settings or inputs are errors.

    Raises:
        ValueError: If there is a result that does not belong to this job.
    """
    result = latest_result(job)
    if job.kind in REPEATED:
        if result is None or not _config_of_test(job, result):
            return False
        return not test_problem(job, result)
    if job.kind == "train":
        result = result if result is not None and _is_complete(Path(result)) else None
        _check_training(job, result)
    if result is None:
        return False
    if job.kind == "boxes" and not _is_same_boxes(job, Path(result).parent):
        return False
    _check_inputs(job, result)
    return True


def is_begun(job: Job) -> bool:
    """Whether there is an unfinished training to resume."""
    return job.kind == "train" and (Path(job.makes).parent / "last_checkpoint").exists()


def resumed_command(job: Job) -> tuple[str, ...]:
    """Command that resumes a begun training from the last checkpoint in its own folder.

    MMEngine's file ``last_checkpoint`` has an absolute path. In a work directory that was moved or
    copied, it is that of another training, or of none.

    Raises:
        ValueError: If the folder lacks the checkpoint.
    """
    last = Path(job.makes).parent / "last_checkpoint"
    recorded = last.read_text().strip()
    checkpoint = last.parent / Path(recorded).name
    if not checkpoint.is_file():
        raise ValueError(
            f"{last} names {recorded!r}; expected this checkpoint in the same folder. Write the "
            "name of one that is there into the file, or move the folder away to train anew"
        )
    moved = Path(recorded) != checkpoint.absolute()
    return (*job.resumed, str(checkpoint)) if moved else job.resumed


def latest_result(job: Job) -> str | None:
    """Result of a job; the last by name if there are several, since MMEngine names them by time."""
    return max(glob(job.makes), default=None)


def finished_line(job: Job) -> str:
    """Say that a job is finished and, for a result made by hand, what was not compared."""
    line = f"# {job.name} is finished: {job.makes}"
    result = latest_result(job)
    if result is None or job.kind == "boxes" or recorded_inputs(job, result) is not None:
        return line
    compared = "its settings alone are compared" if job.config else "nothing is compared"
    return f"{line} (no record of its inputs, as of one made by hand: {compared})"


def missing_inputs(jobs: list[Job]) -> list[str]:
    """List the files that jobs read, that do not exist, and that no job makes.

    Inputs of annotation files that exist already are not needed.
    """
    waiting = [job for job in jobs if job.kind != "files" or not Path(job.makes).exists()]
    paths = dict.fromkeys(path for job in waiting for path in job.inputs if path not in job.reads)
    return [path for path in paths if not Path(path).exists()]


def differences(
    expected: Mapping[str, Any], earlier: Mapping[str, Any], parts: Sequence[str] = TRAINING
) -> list[str]:
    """List the differences between two configs that change the result.

    A total batch that a training by hand does not state is unknown, and differs from any other.

    Args:
        expected: Config of the job.
        earlier: Config that a result was made with.
        parts: Keys of the configs to compare.

    Returns:
        ``'key: earlier VALUE, now VALUE'``, sorted.
    """
    now, then = (deciding_values(config, parts) for config in (expected, earlier))
    if parts == TEST:  # a test is of given weights, whatever they were initialised from
        now, then = ({k: v[k] for k in v if not is_initialisation(k)} for v in (now, then))
    if "total_batch" in now:
        then.setdefault("total_batch", UNKNOWN)
    if earlier.get("resume"):  # load_from is empty then
        now.pop("load_from", None)
        then.pop("load_from", None)
    return [
        f"{d.key}: earlier {d.reference!r}, now {d.other!r}" for d in value_differences(then, now)
    ]


def test_problem(job: Job, result: str) -> str:
    """Say why the result of a test or prediction does not belong to a job; ``''`` if it does.

    Args:
        job: The test.
        result: Its result. Without a config beside it, settings are not compared.
    """
    assert job.config is not None
    config = _config_of_test(job, result)
    expected = in_any_place(job.config.to_dict(), result_folder(job), job.name)
    differing = differences(expected, config, TEST) if config else []
    if differing:
        return f"{result} has other settings ({_first(differing)})"
    if is_open(job):
        return f"{result} is from an earlier run: a later one was started and did not end"
    recorded = recorded_inputs(job, result)
    if recorded is not None:
        changed = changed_inputs(job.compared, recorded)
        return f"{result} was made from other inputs: {_first(changed)}" if changed else ""
    return _problem_without_record(job, result, config)


def _config_of_test(job: Job, result: str) -> dict[str, Any]:
    """Config of a test; empty if there is none."""
    assert job.config is not None
    folder = result_folder(job)
    config = test_config(Path(result), folder, Path(str(job.config.filename)).name)
    return _in_any_place(config or {}, job)


def _in_any_place(config: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """A dumped config, independent of where its work directory was."""
    return in_any_place(config, Path(config.get("work_dir") or ""), job.name)


def _problem_without_record(job: Job, result: str, config: Mapping[str, Any]) -> str:
    """Check the checkpoint of a test by the path in its config and by the names of later runs."""
    checkpoint = next((path for path in job.inputs if path.endswith(".pth")), None)
    if checkpoint is None:
        return ""
    expected = in_any_place({"load_from": checkpoint}, result_folder(job), job.name)["load_from"]
    tested = config.get("load_from")
    if tested and Path(tested).absolute() != Path(expected).absolute():
        return f"{result} is of another checkpoint: earlier {tested}, now {expected}"
    trained = [start.name for start in training_starts(Path(checkpoint).parent)]
    tests = [start.name for start in run_folders(result_folder(job))]
    if trained and tests and trained[-1] > tests[-1]:
        return f"{result} was made before the training {trained[-1]} of {checkpoint} began"
    return ""


def _check_training(job: Job, result: str | None) -> None:
    assert job.config is not None
    folder = Path(job.makes).parent
    name = Path(str(job.config.filename)).name
    configs = training_configs(folder, name)
    if not configs:
        if glob(str(folder / "*.pth")):
            raise ValueError(
                f"{folder} has checkpoints but no {name}, the config that MMEngine writes: "
                "their origin is not known. Move the folder away, or name another --work-dir"
            )
        return
    expected = in_any_place(job.config.to_dict(), folder, job.name)
    expected["total_batch"] = expected.get("total_batch") or job.batch or None
    recorded = recorded_inputs(job, result)
    for config in configs:
        known = recorded is not None or not expected.get("load_from")  # the content is compared
        if config.get("load_from") == UNKNOWN and known:
            config["load_from"] = expected.get("load_from")
        config["resume"] = False  # load_from is that of the first start
        differing = differences(expected, _in_any_place(config, job))
        if differing:
            raise ValueError(
                f"{folder} has other settings ({_first(differing)}). It is not changed; move it "
                "away, or name another --work-dir"
            )
    if result is None and is_begun(job):
        _check_inputs(job, None)


def _check_inputs(job: Job, result: str | None) -> None:
    """Compare the digests of a result's inputs, or of those of an unfinished training.

    Raises:
        ValueError: If one differs.
    """
    is_unclosed = job.kind == "train" and is_open(job)  # killed after its last checkpoint
    recorded = recorded_inputs(job, None if is_unclosed else result)
    if recorded is None:
        return
    # Boxes can be made in two ways with the same result; a record has the inputs of one of them.
    known = [path for path in job.compared if job.kind != "boxes" or path in recorded]
    changed = changed_inputs([p for p in known if not _is_source(job, p)], recorded)
    if changed:
        raise ValueError(
            f"{result or result_folder(job)} was made from other inputs than there are now: "
            f"{_first(changed)}. Move it away to make it again, or restore the inputs"
        )


def _is_source(job: Job, path: str) -> bool:
    """Whether a path is the store that boxes are selected from; manifests are compared instead."""
    return job.kind == "boxes" and Path(path).name == MANIFEST


def _is_same_boxes(job: Job, folder: Path) -> bool:
    """Compare the settings of a finished store; False for an unfinished one, which is resumed."""
    assert job.settings is not None
    manifest = read_manifest(folder) or {}
    if "shards" not in manifest or not (folder / SUMMARY).exists():
        return False
    stored, expected = manifest["settings"], job.settings.as_json()
    if stored != expected:
        raise ValueError(
            f"{folder} has boxes with other settings: earlier {stored}, now {expected}. "
            "Move it away, or name another --work-dir"
        )
    for source in (Path(path).parent for path in job.inputs if _is_source(job, path)):
        other = read_manifest(source) or {}
        for part in SAME_BOXES if "shards" in other else ():
            if _without_root(manifest.get(part)) != _without_root(other.get(part)):
                raise ValueError(
                    f"{folder} has boxes of another {part} than {source}, which they would be "
                    f"selected from: {manifest.get(part)} and {other.get(part)}. "
                    "Move one of them away, or name another --work-dir"
                )
    return True


def _without_root(part: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (part or {}).items() if key != "root"}


def _is_complete(checkpoint: Path) -> bool:
    """Whether MMEngine lists a checkpoint as the last one, which it does when it is written."""
    last = checkpoint.with_name("last_checkpoint")
    return last.exists() and Path(last.read_text().strip()).name == checkpoint.name


def _first(items: Iterable[str], count: int = 4) -> str:
    listed = list(items)
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return "; ".join(listed[:count]) + more
