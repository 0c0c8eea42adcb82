"""Options of trainings: batches and lengths for any number of GPUs, precision, user options."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .config_tree import work_dir_paths

MAX_BATCH_PER_GPU = {"ImageClassifier": 256}  # 32 for detectors; both fit into 80 GB
SCHEDULES = "k_shot_schedules"  # variable of a config: '10shot' → dict(max_iters=…, milestones=…)
SHOTS = re.compile(r"\d+(?=[-_]?shot(?!.*\d[-_]?shot))")  # the last one of a path


def batch_options(config: Config, gpus: int, batch_per_gpu: int | None) -> dict[str, Any]:
    """Options that train a config on a number of GPUs.

    The paper's total batch is divided among the GPUs if it can be divided evenly and no GPU gets
    more than ``batch_per_gpu`` images. Otherwise the total batch changes: MMEngine's
    ``auto_scale_lr`` scales the learning rate by the same factor, and numbers of iterations are
    divided by it, so that the number of images seen remains the same.

    Args:
        config: A config. ``auto_scale_lr.base_batch_size`` is the total batch that it is written
            for. Without it, each process has the config's ``batch_size``, and nothing is scaled.
        gpus: Number of processes.
        batch_per_gpu: Maximum number of images per process; None for 32, or 256 for classifiers.

    Returns:
        Options for ``--cfg-options``. ``total_batch`` has no effect: it records the total batch in
        the config that MMEngine dumps, which lacks the number of processes.
    """
    base = base_batch_size(config)
    if base is None:
        share = min(batch_per_gpu or sys.maxsize, config.train_dataloader.batch_size)
        return {"total_batch": share * gpus, "train_dataloader.batch_size": share}
    max_batch = batch_per_gpu or MAX_BATCH_PER_GPU.get(config.model.type, 32)
    per_gpu = min(max_batch, max(1, base // gpus))
    options: dict[str, Any] = {"total_batch": per_gpu * gpus}
    if per_gpu != config.train_dataloader.batch_size:
        options["train_dataloader.batch_size"] = per_gpu
    if per_gpu * gpus != base:
        if not config.auto_scale_lr.get("enable", False):
            options["auto_scale_lr.enable"] = True
        options |= length_options(config, base / (per_gpu * gpus), warm_up=True)
    return options


def base_batch_size(config: Config) -> int | None:
    """Total batch that a config is written for; None if it does not state one."""
    base: int | None = (config.get("auto_scale_lr") or {}).get("base_batch_size")
    return base


def iteration_options(config: Config, iterations: int) -> dict[str, Any]:
    """Options that train for a number of iterations, with LR steps at the same fractions."""
    return length_options(config, iterations / config.train_cfg.max_iters, warm_up=False)


def length_options(config: Config, factor: float, warm_up: bool) -> dict[str, Any]:
    """Options that scale numbers of iterations: length, intervals, LR steps, optionally warm-up."""
    counts = {}
    if "max_iters" in config.train_cfg:
        counts["train_cfg.max_iters"] = config.train_cfg.max_iters
        counts["default_hooks.checkpoint.interval"] = config.default_hooks.checkpoint.interval
        if "val_interval" in config.train_cfg:
            counts["train_cfg.val_interval"] = config.train_cfg.val_interval
    options: dict[str, Any] = {key: _stretched(count, factor) for key, count in counts.items()}
    for key, scheduler in _schedulers(config):
        if scheduler.get("by_epoch", True):
            continue
        if "milestones" in scheduler:
            milestones = [_stretched(step, factor) for step in scheduler["milestones"]]
            options[f"{key}.milestones"] = milestones
        elif warm_up:
            for count in ("begin", "end", "T_max"):
                if scheduler.get(count):
                    options[f"{key}.{count}"] = _stretched(scheduler[count], factor)
    return options


def k_shot_options(config: Config, entry: str) -> dict[str, Any]:
    """Options that train a k-shot config on another number of images per class, or for longer.

    Args:
        config: A config whose ``ann_file`` states for how many images per class it is written,
            such as ``voc0712_5shot_seed0/annotations.json``.
        entry: Key of its variable ``k_shot_schedules``: ``'10shot'``, or ``'5shot-3x'`` for three
            times the length. An entry has ``milestones`` for the LR schedule; its other keys
            are set in ``train_cfg``.

    Returns:
        Options for ``--cfg-options``: annotation file for this number of images per class, length,
        and LR steps. Empty for the entry that the config is written for, whatever its length.

    Raises:
        ValueError: If no ``ann_file`` states a number of shots, or the config has no such entry.
    """
    k = entry.partition("shot")[0]
    files = {
        key: path
        for key, path in work_dir_paths(config).items()
        if key.endswith("ann_file") and SHOTS.search(path)
    }
    if not files:
        raise ValueError(
            f"{config.filename}: expected an ann_file for training with a number of shots in its "
            f"path, as in voc_5shot_seed0/annotations.json; the file for {k} images per class is "
            "not known"
        )
    options: dict[str, Any] = {
        key: changed for key, path in files.items() if (changed := SHOTS.sub(k, path)) != path
    }
    if not options and entry == f"{k}shot":
        return {}
    schedules = config.get(SCHEDULES) or {}
    if entry not in schedules:
        raise ValueError(
            f"{config.filename}: expected an entry {entry!r} in {SCHEDULES}, found "
            f"{', '.join(schedules) or 'none'}"
        )
    schedule = dict(schedules[entry])
    milestones = list(schedule.pop("milestones"))
    options |= {f"train_cfg.{key}": value for key, value in schedule.items()}
    for key, scheduler in _schedulers(config):
        if "milestones" in scheduler:
            options[f"{key}.milestones"] = milestones
    return options


def amp_options(config: Config) -> dict[str, Any]:
    """Options that train with mixed precision, as ``--amp`` of mmdet and mmpretrain does."""
    if config.optim_wrapper.get("type") == "AmpOptimWrapper":
        return {}
    return {"optim_wrapper.type": "AmpOptimWrapper", "optim_wrapper.loss_scale": "dynamic"}


def added_options(
    config: Config, options: Mapping[str, Any], more: Mapping[str, Any]
) -> dict[str, Any]:
    """Add a user's options to those that the plan gives a training.

    Raises:
        ValueError: If they override options of the plan, or do not fit the config.
    """
    name = Path(str(config.filename)).stem
    try:
        config.copy().merge_from_dict(dict(more))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"--cfg-options do not fit {name}: {error}; expected keys that every training of the "
            "experiment has. --only chooses rows"
        ) from error
    planned = {*options, "train_dataloader.batch_size", "randomness.seed"}
    overridden = sorted(planned.intersection(more))
    if overridden:
        raise ValueError(
            f"--cfg-options: {', '.join(overridden)} of {name} follow from other options; expected "
            "other keys. See --gpus, --batch-per-gpu, --seeds, --iterations, --work-dir and --amp"
        )
    return {**options, **more}


def last_checkpoint(config: Config) -> str:
    """File name of the last checkpoint: ``'iter_40038.pth'`` or ``'epoch_14.pth'``."""
    train = config.train_cfg
    if "max_iters" in train:
        return f"iter_{train.max_iters}.pth"
    return f"epoch_{train.max_epochs}.pth"


def _schedulers(config: Config) -> Iterator[tuple[str, Any]]:
    """The schedulers of a training, each with its key."""
    if isinstance(config.param_scheduler, dict):
        yield "param_scheduler", config.param_scheduler
    else:
        for i, scheduler in enumerate(config.param_scheduler):
            yield f"param_scheduler.{i}", scheduler


def _stretched(count: int, factor: float) -> int:
    return max(1, round(count * factor))
