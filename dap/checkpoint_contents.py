"""Find the weights in the content of a checkpoint and remove wrappers from their names."""

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from dap.checkpoint_faults import EXPECTED

# Keys of weights, in order of preference. MMEngine's EMAHook saves the averaged weights as
# 'state_dict' and the plain ones as 'ema_state_dict'.
_CONTAINERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params_ema"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "shadow", "teacher"),
    *("student", "module", "params", "weights", "generator", "state"),
)
# Keys of tensors that are not weights.
_TRAINING_STATE = re.compile(
    r"optim|sched|scaler|criterion|(^|_)(opt|amp|loss|metrics?|meta|message_hub|rng)(_|$)", re.I
)
_MAX_DEPTH = 5

# Wrappers of single modules, which add a part to the names of their weights.
_WRAPPERS = re.compile(
    r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_fpw_module)\."
)
# Wrappers of the whole model.
_OUTER_WRAPPERS = ("module.", "ema_model.", "_forward_module.")


class _Group(NamedTuple):
    """The tensors of one mapping in a checkpoint."""

    path: tuple[str | int, ...]
    weights: dict[str, Tensor]

    @property
    def rank(self) -> tuple[bool, tuple[int, ...], int]:
        """Order of preference, smallest first: matrices, then known keys, then less depth."""
        only_vectors = all(value.ndim < 2 for value in self.weights.values())
        keys = [key.lower() for key in self.path if isinstance(key, str)]
        known = [_CONTAINERS.index(key) for key in keys if key in _CONTAINERS]
        depth = len(self.path) if known else 0
        return only_vectors, (*known, *[len(_CONTAINERS)] * (_MAX_DEPTH + 1 - len(known))), depth

    @property
    def name(self) -> str:
        """The keys of the mapping, for messages."""
        return "".join(f"[{key!r}]" for key in self.path) or "the top level"


def find_weights(content: object, checkpoint: str) -> dict[str, Tensor]:
    """Find the weights in a checkpoint and remove prefixes of wrappers from their names.

    Mappings under known keys (``'state_dict'``, ``'model'``, …) at any depth are preferred, then
    the mapping with the most tensors. The state of optimizers and the like is ignored. If there
    are several mappings, the choice is logged.

    Args:
        content: Result of `dap.checkpoint_files.read_checkpoint`; not modified.
        checkpoint: Name of the file, for errors and the log.

    Returns:
        Tensors by name; arrays of numpy are converted.

    Raises:
        ValueError: If there are no named tensors, if several unknown keys have the same weights,
            or if weights are quantised, sparse or without values.
    """
    groups = sorted(_groups(content), key=lambda group: (group.rank, -len(group.weights)))
    if not groups:
        raise ValueError(_no_weights_message(content, checkpoint))
    chosen, *others = groups
    others = [group for group in others if group.rank[0] == chosen.rank[0]]
    for other in others:
        common = other.weights.keys() & chosen.weights.keys()
        if other.rank == chosen.rank and 2 * len(common) >= len(chosen.weights):
            raise ValueError(
                f"{checkpoint} holds weights in {chosen.name} and in {other.name}, and nothing "
                "tells which are meant. Save one of them as a separate state dict and pass that."
            )
    if others:
        names = ", ".join(f"{g.name} ({len(g.weights)})" for g in others[:4])
        print_log(
            f"{checkpoint}: weights are taken from {chosen.name} ({len(chosen.weights)} tensors), "
            f"not from {names}",
            logger="current",
        )
    _refuse_compressed(chosen.weights, checkpoint)
    return without_wrappers(chosen.weights)


def _groups(content: object, path: tuple[str | int, ...] = ()) -> Iterator[_Group]:
    """Yield the tensors of all mappings that may hold weights."""
    if isinstance(content, nn.Module):  # of a class that the user allowed
        content = content.state_dict()
    if isinstance(content, Mapping) and "param_groups" not in content:
        tensors = ((key, _as_tensor(v)) for key, v in content.items() if isinstance(key, str))
        weights = OrderedDict((key, value) for key, value in tensors if value is not None)
        if hasattr(content, "_metadata"):  # versions of modules, used to convert old names
            weights._metadata = content._metadata  # type: ignore[attr-defined]
        if weights:
            yield _Group(path, weights)
    if len(path) < _MAX_DEPTH:
        for key, value in _entries(content):
            yield from _groups(value, (*path, key))


def _entries(content: object) -> Iterator[tuple[str | int, object]]:
    """Iterate over nested mappings and lists, except for the state of the training."""
    entries: Iterable[tuple[object, object]] = ()
    if isinstance(content, list | tuple):
        entries = enumerate(content)
    elif isinstance(content, Mapping) and "param_groups" not in content:  # no optimizer
        entries = content.items()
    for key, value in entries:
        is_nested = isinstance(value, Mapping | list | tuple | nn.Module)
        if is_nested and isinstance(key, str | int) and not _TRAINING_STATE.search(str(key)):
            yield key, value


def _as_tensor(value: object) -> Tensor | None:
    """Convert a tensor or an array of numbers to a tensor, anything else to None."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        native = value.astype(value.dtype.newbyteorder("="), copy=True)
        return torch.from_numpy(native)
    return value if isinstance(value, Tensor) else None


def _no_weights_message(content: object, checkpoint: str) -> str:
    """Error message for a checkpoint without named tensors."""
    for path, tensors in _lists(content):
        names = "".join(f"[{key!r}]" for key in path)
        return (
            f"{checkpoint} holds no weights with names: {names or 'it'} is a list of "
            f"{len(tensors)} tensors. Expected {EXPECTED}. Copy them into their model and pass a "
            "file of its state_dict()."
        )
    keys = sorted(map(str, content))[:8] if isinstance(content, Mapping) else "none"
    return (
        f"{checkpoint} holds no weights: found a {type(content).__name__} with keys {keys}, "
        f"expected {EXPECTED}. Pass a file that has tensors."
    )


def _lists(
    content: object, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], list[Tensor]]]:
    """Yield lists of tensors, in which some libraries save averages without names."""
    if isinstance(content, list | tuple) and (t := [x for x in content if isinstance(x, Tensor)]):
        yield path, t
    if len(path) < _MAX_DEPTH:
        for key, value in _entries(content):
            yield from _lists(value, (*path, key))


def _refuse_compressed(weights: Mapping[str, Tensor], checkpoint: str) -> None:
    """Raise ValueError for tensors that ``load_state_dict`` cannot copy, or copies unscaled."""
    for name, value in weights.items():
        is_integer = value.dtype in (torch.int8, torch.uint8) and name.endswith("weight")
        if value.is_quantized or is_integer:
            kind = f"quantised ({value.dtype})"
        elif value.is_meta:
            kind = "on the device 'meta', without values"
        elif value.layout is not torch.strided:
            kind = f"sparse ({value.layout})"
        else:
            continue
        raise ValueError(
            f"{checkpoint}: {name} is {kind}. Expected weights in floating point, dense. Pass the "
            "checkpoint from before the conversion."
        )


def select(
    weights: dict[str, Tensor], keep: Callable[[str], bool], prefix: str = ""
) -> dict[str, Tensor]:
    """Select tensors of a state dict, with the versions of modules in its ``_metadata``.

    Args:
        weights: Tensors by name; not modified.
        keep: Whether to select a name.
        prefix: Prefix to remove from the names.

    Returns:
        A new dict of the same tensors.
    """
    weights = renamed(weights, str)
    _drop(weights, [name for name in weights if not keep(name)])
    return renamed(weights, lambda name: name.removeprefix(prefix))


def without_wrappers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes of wrappers from the names.

    ``_orig_mod.``, ``_fsdp_wrapped_module.`` and ``_checkpoint_wrapped_module.`` are removed
    everywhere; ``module.`` and ``ema_model.`` if all names start with them. Averaged weights are
    left out if the plain weights are present. Counters (scalars without a module) are left out if
    the weights are wrapped.

    Args:
        weights: Tensors by name; not modified.

    Returns:
        A new dict of the same tensors.
    """
    weights = renamed(weights, lambda name: _WRAPPERS.sub("", name))
    counters = {name for name, value in weights.items() if "." not in name and not value.ndim}
    averages = {name for name in weights if name.startswith("ema_model.")}
    if len(averages) < len(weights.keys() - counters):
        _drop(weights, averages)
    wrapped = weights.keys() - counters
    while outer := next((p for p in _OUTER_WRAPPERS if _all_start_with(p, wrapped)), ""):
        kept = frozenset(wrapped)
        weights = select(weights, kept.__contains__, prefix=outer)
        wrapped = set(weights)
    return weights


def _all_start_with(prefix: str, names: Collection[str]) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)


def _drop(weights: dict[str, Tensor], names: Iterable[str]) -> None:
    """Remove names that are present."""
    for name in names:
        weights.pop(name, None)


def renamed(weights: dict[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    """Rename tensors, and the modules in the ``_metadata`` of the state dict.

    Args:
        weights: Tensors by name; not modified.
        rename: From the old to the new name of a tensor, or of a module followed by a dot.

    Returns:
        A new dict of the same tensors.
    """
    result = OrderedDict((rename(name), value) for name, value in weights.items())
    if hasattr(weights, "_metadata"):
        versions: Mapping[str, Any] = weights._metadata
        result._metadata = {  # type: ignore[attr-defined]
            rename(f"{module}.").strip("."): version for module, version in versions.items()
        }
    return result
