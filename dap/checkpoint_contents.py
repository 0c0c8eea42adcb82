"""Find the weights in the content of a checkpoint, and their names."""

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from dap.checkpoint_faults import EXPECTED

# Under which keys weights lie; where there are several, the first one counts. MMEngine's EMAHook
# saves the averaged weights as 'state_dict' and the raw ones as 'ema_state_dict'.
_CONTAINERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params_ema"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "shadow", "teacher"),
    *("student", "module", "params", "weights", "generator", "state"),
)
# Below these there are tensors, but no weights.
_TRAINING_STATE = re.compile(
    r"optim|sched|scaler|criterion|(^|_)(opt|amp|loss|metrics?|meta|message_hub|rng)(_|$)", re.I
)
_DEEPEST = 5

# Wrappers that may stand around any module, each with its name in the names of the weights.
_WRAPPERS = re.compile(
    r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_fpw_module)\."
)
# Wrappers around the whole model.
_OUTER_WRAPPERS = ("module.", "ema_model.", "_forward_module.")


class _Group(NamedTuple):
    """The tensors that stand beside each other in a checkpoint."""

    path: tuple[str | int, ...]
    weights: dict[str, Tensor]

    @property
    def rank(self) -> tuple[bool, tuple[int, ...], int]:
        """Order of choice, the smallest first: not only vectors, then known keys, less deep."""
        only_vectors = all(value.ndim < 2 for value in self.weights.values())
        keys = [key.lower() for key in self.path if isinstance(key, str)]
        known = [_CONTAINERS.index(key) for key in keys if key in _CONTAINERS]
        depth = len(self.path) if known else 0
        return only_vectors, (*known, *[len(_CONTAINERS)] * (_DEEPEST + 1 - len(known))), depth

    @property
    def name(self) -> str:
        """The keys that lead to it."""
        return "".join(f"[{key!r}]" for key in self.path) or "the top level"


def find_weights(content: object, checkpoint: str) -> dict[str, Tensor]:
    """Find the weights in a checkpoint and take the prefixes of wrappers off their names.

    Known keys (``'state_dict'``, ``'model'``, …) come first, at any depth; else the mapping with
    the most tensors counts. Nothing below an optimizer and its like is looked at. The log says
    what was chosen where there is a choice.

    Args:
        content: What `dap.checkpoint_files.read_checkpoint` gives; not changed.
        checkpoint: Name of the file, for errors and the log.

    Returns:
        Tensors by name, those of numpy included.

    Raises:
        ValueError: If there are no tensors with names, if unknown keys hold several sets of the
            same weights, or if weights are quantised, sparse or without values.
    """
    groups = sorted(_groups(content), key=lambda group: (group.rank, -len(group.weights)))
    if not groups:
        raise ValueError(_nothing_found(content, checkpoint))
    chosen, *others = groups
    others = [group for group in others if group.rank[0] == chosen.rank[0]]
    for other in others:
        common = other.weights.keys() & chosen.weights.keys()
        if other.rank == chosen.rank and 2 * len(common) >= len(chosen.weights):
            raise ValueError(
                f"{checkpoint} holds weights in {chosen.name} and in {other.name}, and nothing "
                "tells which are meant. Save one of them as a state dict of its own and pass that."
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
    """Go through all mappings of a checkpoint that may hold weights."""
    if isinstance(content, nn.Module):  # of a class that the user allowed
        content = content.state_dict()
    if isinstance(content, Mapping) and "param_groups" not in content:
        tensors = ((key, _as_tensor(v)) for key, v in content.items() if isinstance(key, str))
        weights = OrderedDict((key, value) for key, value in tensors if value is not None)
        if hasattr(content, "_metadata"):  # versions of modules, by which torch converts old names
            weights._metadata = content._metadata  # type: ignore[attr-defined]
        if weights:
            yield _Group(path, weights)
    if len(path) < _DEEPEST:
        for key, value in _entries(content):
            yield from _groups(value, (*path, key))


def _entries(content: object) -> Iterator[tuple[str | int, object]]:
    """Iterate over nested mappings and lists, without the state of the training."""
    entries: Iterable[tuple[object, object]] = ()
    if isinstance(content, list | tuple):
        entries = enumerate(content)
    elif isinstance(content, Mapping) and "param_groups" not in content:  # as an optimizer has
        entries = content.items()
    for key, value in entries:
        is_nested = isinstance(value, Mapping | list | tuple | nn.Module)
        if is_nested and isinstance(key, str | int) and not _TRAINING_STATE.search(str(key)):
            yield key, value


def _as_tensor(value: object) -> Tensor | None:
    """Give a tensor or an array of numbers as a tensor, anything else as None."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        native = value.astype(value.dtype.newbyteorder("="), copy=True)
        return torch.from_numpy(native)
    return value if isinstance(value, Tensor) else None


def _nothing_found(content: object, checkpoint: str) -> str:
    """Describe a checkpoint without named tensors."""
    for path, tensors in _lists(content):
        names = "".join(f"[{key!r}]" for key in path)
        return (
            f"{checkpoint} holds no weights with names: {names or 'it'} is a list of "
            f"{len(tensors)} tensors. Expected {EXPECTED}. Copy them into the model that they are "
            "of and pass a file of its state_dict()."
        )
    keys = sorted(map(str, content))[:8] if isinstance(content, Mapping) else "none"
    return (
        f"{checkpoint} holds no weights: found a {type(content).__name__} with keys {keys}, "
        f"expected {EXPECTED}. Pass a file that has tensors."
    )


def _lists(
    content: object, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], list[Tensor]]]:
    """Go through the lists of tensors, in which averages without names are saved."""
    if isinstance(content, list | tuple) and (t := [x for x in content if isinstance(x, Tensor)]):
        yield path, t
    if len(path) < _DEEPEST:
        for key, value in _entries(content):
            yield from _lists(value, (*path, key))


def _refuse_compressed(weights: Mapping[str, Tensor], checkpoint: str) -> None:
    """Refuse tensors that ``load_state_dict`` cannot copy, or would copy without their scales."""
    for name, value in weights.items():
        whole_numbers = value.dtype in (torch.int8, torch.uint8) and name.endswith("weight")
        if value.is_quantized or whole_numbers:
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
    weights: dict[str, Tensor], keep: Callable[[str], bool], cut: str = ""
) -> dict[str, Tensor]:
    """Take some tensors of a state dict, and the versions of modules that torch keeps beside.

    Args:
        weights: Tensors by name; not changed.
        keep: Whether to take a name.
        cut: Prefix to take off the names.

    Returns:
        A new dict of the same tensors.
    """
    weights = renamed(weights, str)
    _drop(weights, [name for name in weights if not keep(name)])
    return renamed(weights, lambda name: name.removeprefix(cut))


def without_wrappers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the prefixes of wrappers off the names.

    ``_orig_mod.``, ``_fsdp_wrapped_module.`` and ``_checkpoint_wrapped_module.`` go anywhere;
    ``module.`` and ``ema_model.`` where all names begin so. Averages beside the weights that they
    average are left out, and so are counters (scalars without a module) beside wrapped weights.

    Args:
        weights: Tensors by name; not changed.

    Returns:
        A new dict of the same tensors.
    """
    weights = renamed(weights, lambda name: _WRAPPERS.sub("", name))
    counters = {name for name, value in weights.items() if "." not in name and not value.ndim}
    averages = {name for name in weights if name.startswith("ema_model.")}
    if len(averages) < len(weights.keys() - counters):
        _drop(weights, averages)
    wrapped = weights.keys() - counters
    while outer := next((p for p in _OUTER_WRAPPERS if _all_begin_with(p, wrapped)), ""):
        kept = frozenset(wrapped)
        weights = select(weights, kept.__contains__, cut=outer)
        wrapped = set(weights)
    return weights


def _all_begin_with(prefix: str, names: Collection[str]) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)


def _drop(weights: dict[str, Tensor], names: Iterable[str]) -> None:
    """Remove names that are present."""
    for name in names:
        weights.pop(name, None)


def renamed(weights: dict[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    """Rename tensors, and with them the modules whose versions torch keeps beside.

    Args:
        weights: Tensors by name; not changed.
        rename: Gives the new name of a tensor, and of a module with a dot behind it.

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
