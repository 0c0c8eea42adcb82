"""Whether a job is finished, and whether what is there is of the same settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from mmengine.config import Config

from dap.pseudo_boxes.store import SUMMARY, read_manifest

from .config_tree import leaves
from .jobs import Job

# What decides a result; all else, such as logging and the number of workers, may differ.
TRAINING = (
    *("model", "train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"),
    *("auto_scale_lr", "randomness", "load_from", "total_batch"),
)
TEST = ("model", "test_dataloader", "test_evaluator")
FREE = {
    *("num_workers", "persistent_workers", "pin_memory", "collate_fn", "prefetch_factor"),
    *("batch_size", "val_interval", "outfile_prefix"),
}


def is_finished(job: Job) -> bool:
    """Tell whether a job is finished.

    A test is repeated where its settings or its checkpoint are newer than it. All else of other
    settings, or older than what another job has made for it, is refused.

    Raises:
        ValueError: If there is a result that is not of this job.
    """
    if job.kind == "train":
        _check_config(job)
    made = max(glob(job.makes), key=_age, default=None)
    if made is None or (job.kind == "train" and not _ended(Path(made))):
        return False
    if job.kind == "test":
        return not _newer_inputs(job, made) and _is_same_test(job)
    if job.kind == "boxes" and not _is_same_boxes(job, Path(made).parent):
        return False
    newer = _newer_inputs(job, made)
    if newer:
        raise ValueError(
            f"{made} is older than {newer[0]}, which it was made from. Move it away to have it "
            "made again, or touch it if it is right"
        )
    return True


def is_begun(job: Job) -> bool:
    """Tell whether there is an unfinished training to go on with."""
    return job.kind == "train" and (Path(job.makes).parent / "last_checkpoint").exists()


def missing_inputs(jobs: list[Job]) -> list[str]:
    """Files that jobs read, that are not there and that no job makes."""
    paths = dict.fromkeys(path for job in jobs for path in job.inputs if path not in job.reads)
    return [path for path in paths if not Path(path).exists()]


def differences(expected: Config, found: Config, parts: Sequence[str] = TRAINING) -> list[str]:
    """What differs between two configs in what decides the result.

    Where one of them does not say its ``total_batch``, a training by hand, that is not compared.

    Returns:
        ``'key: found there, expected now'``, sorted.
    """
    ignored = {"load_from"} if found.get("resume") else set()  # mmdet empties it then
    if found.get("total_batch") is None:
        ignored.add("total_batch")
    there, now = (_flat(config, set(parts) - ignored) for config in (found, expected))
    keys = sorted(there.keys() | now.keys())
    return [
        f"{key}: {there.get(key)!r} there, {now.get(key)!r} now"
        for key in keys
        if there.get(key) != now.get(key)
    ]


def _check_config(job: Job) -> None:
    assert job.config is not None
    folder = Path(job.makes).parent
    dumped = folder / Path(str(job.config.filename)).name
    if not dumped.exists():
        if glob(str(folder / "*.pth")):
            raise ValueError(
                f"{folder} has checkpoints but no {dumped.name}, the config that MMEngine writes: "
                "where they are from is not known. Move the folder away, or name another --work-dir"
            )
        return
    differing = differences(job.config, Config.fromfile(dumped, import_custom_modules=False))
    if differing:
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise ValueError(
            f"{folder} is of other settings ({'; '.join(differing[:4])}{more}). Nothing of it is "
            "touched; move it away, or name another --work-dir"
        )


def _is_same_boxes(job: Job, folder: Path) -> bool:
    """Compare settings; a run that was killed before its end is for the tool to go on with."""
    assert job.settings is not None
    manifest = read_manifest(folder) or {}
    if "shards" not in manifest or not (folder / SUMMARY).exists():
        return False
    found, expected = manifest["settings"], job.settings.as_json()
    if found != expected:
        raise ValueError(
            f"{folder} holds boxes of other settings: {found} there, {expected} now. "
            "Move it away, or name another --work-dir"
        )
    return True


def _ended(checkpoint: Path) -> bool:
    """MMEngine notes a checkpoint when all of it is written."""
    note = checkpoint.with_name("last_checkpoint")
    return note.exists() and Path(note.read_text().strip()).name == checkpoint.name


def _newer_inputs(job: Job, made: str) -> list[str]:
    """What the job reads from other jobs and has been made after its result."""
    age = _age(made)
    return [path for path in job.reads if Path(path).exists() and _age(path) > age]


def _is_same_test(job: Job) -> bool:
    assert job.config is not None
    dumped = Path(job.makes).parents[1] / Path(str(job.config.filename)).name
    if not dumped.exists():
        return False
    return not differences(job.config, Config.fromfile(dumped, import_custom_modules=False), TEST)


def _flat(config: Config, parts: Iterable[str]) -> dict[str, Any]:
    """The values of some parts; what is empty counts as absent, a tuple as a list."""
    flat = {
        key: list(value) if isinstance(value, tuple) else value
        for part in parts
        for key, value in leaves(config.to_dict().get(part), part)
        if not FREE.intersection(key.split("."))
    }
    return {key: value for key, value in flat.items() if value not in (None, {}, [])}


def _age(path: str) -> float:
    return Path(path).stat().st_mtime
