"""Differences between the configs of two runs that can change their results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Parts of a config that decide the result of a training. The rest is logging, paths and variables
# that MMEngine does not read.
TRAINING = (
    *("model", "train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"),
    *("auto_scale_lr", "data_preprocessor", "default_hooks", "custom_hooks", "randomness"),
    *("load_from", "total_batch"),
)
TEST = ("model", "data_preprocessor", "test_dataloader", "test_evaluator")
"""Parts of a config that decide the result of a test of given weights."""
EVALUATION = {
    "validation": ("val_dataloader", "val_evaluator"),
    "test": ("test_dataloader", "test_evaluator"),
}
"""Parts of a config that decide how figures are measured, by the source of the figures."""
HOUSEKEEPING_HOOKS = {"logger", "checkpoint", "visualization", "timer", "runtime_info"}
# Custom hooks that check, log or write, but change no weight. Others are compared, such as EMAHook.
NEUTRAL_HOOKS = {
    *("NumClassCheckHook", "CheckInvalidLossHook", "MemoryProfilerHook", "EmptyCacheHook"),
    *("LoggerHook", "IterTimerHook", "VisualizationHook", "DetVisualizationHook", "ProfilerHook"),
    *("TotalBatchHook", "ResumedDataHook", "ValidationPicturesHook", "PseudoBoxHook"),
}
IGNORED_KEYS = {
    *("num_workers", "persistent_workers", "pin_memory", "collate_fn", "prefetch_factor"),
    *("val_interval", "outfile_prefix", "backend_args", "_scope_"),
}
INITIALISATION = re.compile(r"load_from|.*(^|\.)(init_cfg|pretrained)(\..*)?")
SEED = re.compile(r"[-_.]?seed[-_]?(\d+)")
HASH = re.compile(r"-[0-9a-f]{8}(?=\.pth$)")  # appended to names by tools/extract_detector.py
BATCH_SIZE = "train_dataloader.batch_size"


@dataclass(frozen=True)
class Difference:
    """A value that differs between two configs; None in the config that lacks it."""

    key: str
    reference: Any
    other: Any


def result_values(config: Mapping[str, Any], figures_of: str = "validation") -> dict[str, Any]:
    """Flatten the values of a config that decide its figures, apart from seeds.

    Args:
        config: A config as MMEngine dumps it.
        figures_of: Source of the figures: ``'validation'`` or ``'test'``.

    Returns:
        See `deciding_values`.
    """
    return deciding_values(config, (*TRAINING, *EVALUATION[figures_of]), with_seeds=False)


def deciding_values(
    config: Mapping[str, Any], parts: Sequence[str], with_seeds: bool = True
) -> dict[str, Any]:
    """Flatten the values of some parts of a config that decide a result.

    Args:
        config: A config as MMEngine dumps it.
        parts: Keys at the top of the config, such as ``TRAINING``. A ``data_preprocessor`` at the
            top is used for a model that has none, as MMEngine does.
        with_seeds: Whether to keep ``randomness.seed``, and seed numbers and hashes in paths.

    Returns:
        ``'optim_wrapper.optimizer.lr'`` → value. Empty values are left out; tuples become lists.
    """
    flat: dict[str, Any] = {}
    for part in parts:
        value = config.get(part)
        if part == "custom_hooks":
            value = [hook for hook in value or () if type_name(hook) not in NEUTRAL_HOOKS]
        if part == "data_preprocessor":
            of_model = (config.get("model") or {}).get("data_preprocessor")
            part, value = "model.data_preprocessor", of_model or value
        flat |= leaves(value, part)
    return {
        key: _plain(value, not with_seeds)
        for key, value in flat.items()
        if value not in (None, [], ()) and not _is_ignored(key, with_seeds)
    }


def differences(reference: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    """Compare two results of `deciding_values`.

    Total batches are compared if both have one, else batch sizes per GPU.

    Returns:
        The values that differ, sorted by key.
    """
    both_have_total = "total_batch" in reference and "total_batch" in other
    ignored = BATCH_SIZE if both_have_total else "total_batch"
    return [
        Difference(key, reference.get(key), other.get(key))
        for key in sorted(reference.keys() | other.keys())
        if key != ignored and reference.get(key) != other.get(key)
    ]


def same_training_key(values: Mapping[str, Any]) -> str:
    """A text that is equal for trainings that differ only in their seed."""
    ignored = BATCH_SIZE if "total_batch" in values else None
    return json.dumps({k: v for k, v in sorted(values.items()) if k != ignored}, default=repr)


def is_initialisation(key: str) -> bool:
    """Whether a key names the origin of weights, such as ``load_from`` or ``….init_cfg.…``."""
    return INITIALISATION.fullmatch(key) is not None


def initialisation(config: Mapping[str, Any]) -> list[str]:
    """List the weights that a training starts from, such as ``['torchvision://resnet50']``."""
    values = (item for part in ("model", "load_from") for item in leaves(config.get(part), part))
    sources = [str(value) for key, value in values if is_initialisation(key)]
    return [source for source in sources if re.search(r"[/:]|\.pth", source)]


def shots_of(config: Mapping[str, Any]) -> int | None:
    """Images per class of the training set, read from the name that tools/few_shot.py gives it."""
    return _number_in_training_set(config, re.compile(r"(?<!\d)(\d+)[-_]?shot"))


def draw_of(config: Mapping[str, Any]) -> int | None:
    """Seed of the draw of a k-shot training set, read from its name."""
    return _number_in_training_set(config, SEED) if shots_of(config) is not None else None


def shortened(value: Any, max_length: int = 60) -> str:
    """Write a value of a config in at most ``max_length`` characters; start and end are kept."""
    text = "–" if value is None else repr(value)
    if len(text) <= max_length:
        return text
    half = (max_length - 3) // 2
    return f"{text[:half]} … {text[-half:]}"


def _number_in_training_set(config: Mapping[str, Any], pattern: re.Pattern[str]) -> int | None:
    for key, value in leaves(config.get("train_dataloader")):
        if key.endswith("ann_file") and (match := pattern.search(str(value))):
            return int(match[1])
    return None


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over the leaves of nested dicts and lists.

    Args:
        value: A config, or a part of it.
        key: Position of the part in the config.

    Yields:
        Key, such as ``'a.0.b'``, and value. A list without dicts in it is a leaf.
    """
    children: Iterable[tuple[Any, Any]]
    if isinstance(value, Mapping):
        children = value.items()
    elif isinstance(value, list | tuple) and _holds_mappings(value):
        children = enumerate(value)
    else:
        yield key, value
        return
    for name, child in children:
        yield from leaves(child, f"{key}.{name}" if key else str(name))


def _holds_mappings(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds_mappings(item) for item in value)
    return isinstance(value, Mapping)


def _plain(value: Any, without_seeds: bool) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item, without_seeds) for item in value]
    if isinstance(value, str) and without_seeds:
        # In a URL, a hash identifies the weights; in a local file, it differs between seeds.
        return value if "://" in value else HASH.sub("", SEED.sub("", value))
    return value


def type_name(entry: Any) -> str:
    """Name of the class that an entry of a config builds, without scope and module."""
    kind = entry.get("type") if isinstance(entry, Mapping) else entry
    return (kind if isinstance(kind, str) else getattr(kind, "__name__", "")).rsplit(".", 1)[-1]


def _is_ignored(key: str, with_seeds: bool) -> bool:
    parts = key.split(".")
    return (
        (key == "randomness.seed" and not with_seeds)
        or not IGNORED_KEYS.isdisjoint(parts)
        or (parts[0] == "default_hooks" and parts[1] in HOUSEKEEPING_HOOKS)
        or (parts[0] != "train_dataloader" and parts[-1] == "batch_size")
    )
