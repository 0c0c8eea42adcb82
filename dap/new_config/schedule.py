"""Schedules for a given number of iterations, from those of a detector's recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .code import Code
from .trees import plain

_WARM_UPS = ("LinearLR", "ConstantLR", "QuadraticWarmupLR")
_AUTO_BATCH = re.compile(r"(\d+)xb(\d+)")
# Hooks that act at a given epoch; an iteration-based training has no epochs.
EPOCH_HOOKS = ("PipelineSwitchHook", "YOLOXModeSwitchHook")


def warm_up(config: Config, iterations: int) -> list[Any]:
    """Warm-up of the paper's pre-training; the learning rate is constant after it."""
    ends = [_iteration_end(s) for s in _schedulers(config) if _is_warm_up(s)]
    longest = max((end for end in ends if end), default=500)
    end = max(1, min(longest, iterations // 10))
    return [{"type": "LinearLR", "start_factor": 0.01, "end": end, "by_epoch": False}]


def scaled(config: Config, iterations: int) -> list[Any]:
    """Schedule of the recipe, scaled to ``iterations``.

    Epochs become fractions of the variable ``iterations``. A warm-up that counts iterations keeps
    its length, but takes at most a tenth of all iterations.
    """
    length = _length(config)
    schedulers = []
    for scheduler in _schedulers(config):
        changed = {k: v for k, v in scheduler.items() if k != "convert_to_iter_based"}
        by_epoch = changed.get("by_epoch", True)
        if not by_epoch and _is_warm_up(scheduler) and changed.get("end"):
            changed["end"] = max(1, min(changed["end"], iterations // 10))
        else:
            for key in ("begin", "end", "T_max", "milestones", "step_size"):
                if changed.get(key):
                    changed[key] = _fraction(changed[key], length)
        schedulers.append({**changed, "by_epoch": False})
    return schedulers


def _fraction(value: Any, length: int) -> Any:
    if isinstance(value, list | tuple):
        return [_fraction(item, length) for item in value]
    return Code("iterations" if value >= length else f"iterations * {value} // {length}")


def _length(config: Config) -> int:
    """Length of the recipe, in epochs or iterations."""
    train = config.get("train_cfg") or {}
    return int(train.get("max_epochs") or train.get("max_iters") or 12)


def _schedulers(config: Config) -> Sequence[Mapping[str, Any]]:
    schedulers = config.get("param_scheduler") or []
    return list(plain([schedulers] if isinstance(schedulers, Mapping) else schedulers))


def _is_warm_up(scheduler: Mapping[str, Any]) -> bool:
    return scheduler["type"] in _WARM_UPS and not scheduler.get("begin")


def _iteration_end(scheduler: Mapping[str, Any]) -> int:
    """End of a scheduler that counts iterations, else 0."""
    return 0 if scheduler.get("by_epoch", True) else int(scheduler.get("end") or 0)


def auto_scale_lr(config: Config) -> dict[str, Any]:
    """Make MMEngine scale the learning rate from the total batch of the recipe.

    A name such as 8xb32 states that batch. RTMDet's configs inherit another base_batch_size, 16.
    """
    known = (config.get("auto_scale_lr") or {}).get("base_batch_size")
    named = _AUTO_BATCH.search(Path(str(config.filename)).name)
    batch = int(named[1]) * int(named[2]) if named else known or 16
    return {"enable": True} | ({} if batch == known else {"base_batch_size": batch})
