"""Whether a job is finished, and whether what is there is of the same settings."""

from __future__ import annotations

import json
from glob import glob
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .config_tree import leaves
from .plan import Job

# What may differ between two runs of the same experiment.
FREE = {
    *("work_dir", "launcher", "resume", "env_cfg", "visualizer", "vis_backends", "log_level"),
    *("log_processor", "default_hooks", "custom_imports", "model_wrapper_cfg", "model_wrapper"),
}
FREE_LEAVES = {"num_workers", "persistent_workers", "pin_memory", "collate_fn"}


def is_finished(job: Job) -> bool:
    """Tell whether a job is finished.

    Raises:
        ValueError: If there is a result of other settings.
    """
    made = max(glob(job.makes), key=_age, default=None)
    if job.kind == "train":
        _check_config(job)
    if made is None:
        return False
    if job.kind == "test":
        return _age(made) >= _age(job.checkpoint)
    if job.kind == "boxes":
        _check_boxes(job, Path(made))
    return True


def is_begun(job: Job) -> bool:
    """Tell whether there is an unfinished training to go on with."""
    return job.kind == "train" and (Path(job.makes).parent / "last_checkpoint").exists()


def missing_inputs(jobs: list[Job]) -> list[str]:
    """Files that jobs read, that are not there and that no job makes."""
    made = {job.makes for job in jobs}
    paths = dict.fromkeys(path for job in jobs for path in job.inputs)
    return [path for path in paths if path not in made and not Path(path).exists()]


def differences(expected: Config, found: Config) -> list[str]:
    """What differs between two configs, apart from what does not matter for the result.

    Returns:
        ``'key: found there, expected now'``, sorted.
    """
    there, now = (_flat(config) for config in (found, expected))
    if there.pop("resumed", False):  # mmdet empties load_from then
        there.pop("load_from", None)
        now.pop("load_from", None)
    now.pop("resumed", None)
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


def _check_boxes(job: Job, annotations: Path) -> None:
    assert job.settings is not None
    summary = annotations.with_name("summary.json")
    if not summary.exists():
        raise ValueError(
            f"{annotations} has no summary.json beside it: it is not of a finished run"
        )
    found, expected = json.loads(summary.read_text())["settings"], job.settings.as_json()
    if found != expected:
        raise ValueError(
            f"{annotations.parent} holds boxes of other settings: {found} there, {expected} now. "
            "Move it away, or name another --work-dir"
        )


def _flat(config: Config) -> dict[str, Any]:
    content = config.to_dict()
    flat = {
        key: list(value) if isinstance(value, tuple) else value
        for part, child in content.items()
        if part not in FREE
        for key, value in leaves(child, part)
        if key.rsplit(".", 1)[-1] not in FREE_LEAVES
    }
    flat = {key: value for key, value in flat.items() if value not in (None, {}, [])}
    return {**flat, "resumed": bool(content.get("resume"))}


def _age(path: str) -> float:
    return Path(path).stat().st_mtime
