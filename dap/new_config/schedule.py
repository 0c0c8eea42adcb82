"""Schedules of a given number of iterations, from those of a detector's own recipe."""

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
# They act at an epoch of a long training, which a training by iterations does not have.
SWITCHES = ("PipelineSwitchHook", "YOLOXModeSwitchHook")


def warm_up(config: Config, iterations: int) -> list[Any]:
    """The warm-up of the paper's pre-training, whose learning rate is constant behind it."""
    own = [_plain_end(s) for s in _schedulers(config) if _is_warm_up(s)]
    longest = max((end for end in own if end), default=500)
    end = max(1, min(longest, iterations // 10))
    return [{"type": "LinearLR", "start_factor": 0.01, "end": end, "by_epoch": False}]


def scaled(config: Config, iterations: int) -> list[Any]:
    """The recipe's own schedule, stretched or shortened to ``iterations``.

    Epochs become shares of the variable ``iterations``. A warm-up that counts iterations stays, but
    takes a tenth of all at most.
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
                    changed[key] = _share(changed[key], length)
        schedulers.append({**changed, "by_epoch": False})
    return schedulers


def _share(value: Any, length: int) -> Any:
    if isinstance(value, list | tuple):
        return [_share(item, length) for item in value]
    return Code("iterations" if value >= length else f"iterations * {value} // {length}")


def _length(config: Config) -> int:
    """Epochs or iterations of the recipe."""
    train = config.get("train_cfg") or {}
    return int(train.get("max_epochs") or train.get("max_iters") or 12)


def _schedulers(config: Config) -> Sequence[Mapping[str, Any]]:
    own = config.get("param_scheduler") or []
    return list(plain([own] if isinstance(own, Mapping) else own))


def _is_warm_up(scheduler: Mapping[str, Any]) -> bool:
    return scheduler["type"] in _WARM_UPS and not scheduler.get("begin")


def _plain_end(scheduler: Mapping[str, Any]) -> int:
    return 0 if scheduler.get("by_epoch", True) else int(scheduler.get("end") or 0)


def auto_scale_lr(config: Config) -> dict[str, Any]:
    """Have MMEngine scale the learning rate from the batch that the recipe is made for.

    A name like 8xb32 says that batch; RTMDet's configs inherit another base_batch_size, of 16.
    """
    known = (config.get("auto_scale_lr") or {}).get("base_batch_size")
    named = _AUTO_BATCH.search(Path(str(config.filename)).name)
    batch = int(named[1]) * int(named[2]) if named else known or 16
    return {"enable": True} | ({} if batch == known else {"base_batch_size": batch})
