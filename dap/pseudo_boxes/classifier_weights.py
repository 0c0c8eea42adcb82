"""Fit the weights of a checkpoint to a classifier, whoever saved them."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from dap.checkpoint import load_weights, renamed, require_finite, select

# Of networks that are saved together, the one that is meant for use: the averaged teacher of DINO,
# the trained encoder of MoCo, the online network of BYOL.
_MEANT_FOR_USE = ("teacher", "encoder_q", "online_network", "online_encoder")
_WRAPPER = re.compile(r"(^|(?<=\.))module\.")
# torch supplies these counters, which only training uses, to weights that are older than they.
_COUNTER = ".num_batches_tracked"


def load_classifier_weights(model: nn.Module, checkpoint: str, config_name: str) -> dict[str, Any]:
    """Load the weights of a checkpoint into an mmpretrain classifier.

    The names may be mmpretrain's (``backbone.conv1.weight``, ``head.fc.weight``) or those of
    torchvision and timm (``conv1.weight``, ``fc.weight`` or ``classifier.weight``), each below any
    prefix: the one below which all weights of the model are found. Half precision is converted.

    Args:
        model: Classifier with ``backbone`` and ``head``; changed in place, not if there is an
            error.
        checkpoint: File or URL, anything that `load_weights` reads.
        config_name: Where the model comes from, for errors.

    Returns:
        The checkpoint's ``meta``.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it is no checkpoint, lacks weights of the model, has some of another shape,
            not finite or not in floating point, or holds the model several times.
    """
    weights, meta = load_weights(checkpoint)
    expected = model.state_dict()
    weights = _without_inner_wrappers(weights, expected)
    fitting = _choose(expected, weights, checkpoint, config_name)
    _check(expected, fitting, checkpoint, config_name)
    model.load_state_dict(select(fitting, expected.__contains__), strict=False)
    unused = len(weights) - len(expected.keys() & fitting.keys())
    if unused:
        used = {id(fitting[name]) for name in expected.keys() & fitting.keys()}
        example = next((name for name, value in weights.items() if id(value) not in used), "")
        print_log(
            f"checkpoint {checkpoint}: {unused} weights are not used, such as {example}",
            logger="current",
        )
    return meta


def _without_inner_wrappers(
    weights: dict[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Take DataParallel's ``module.`` out of the middle of names, if the model has no such."""
    names = {_WRAPPER.sub("", name) for name in weights}
    if len(names) < len(weights) or any(_WRAPPER.search(name) for name in expected):
        return weights
    return renamed(weights, lambda name: _WRAPPER.sub("", name))


def _choose(
    expected: Mapping[str, Tensor], weights: dict[str, Tensor], checkpoint: str, config_name: str
) -> dict[str, Tensor]:
    """Find the classifier in a checkpoint: its weights under the names that the model has."""
    needed = {name for name in expected if not name.endswith(_COUNTER)}
    prefixes = _prefixes(weights)
    candidates = {
        prefix: _below(prefix, weights)
        for prefix in prefixes
        if any(f"{prefix}{name}" in weights for name in needed)
    }
    if not any(needed <= found.keys() for found in candidates.values()):
        candidates |= dict(_plain_candidates(expected, needed, weights, prefixes))
    complete = {prefix: found for prefix, found in candidates.items() if needed <= found.keys()}
    if not complete:
        nearest = max(candidates.values(), key=lambda found: len(needed & found.keys()), default={})
        missing = sorted(needed - nearest.keys())
        raise ValueError(
            f"checkpoint {checkpoint} is not of the classifier in {config_name}: {len(missing)} of "
            f"{len(needed)} weights are missing, such as {missing[0]}; it holds {len(weights)}, "
            f"such as {next(iter(weights))}. Give the checkpoint that belongs to this config"
        )
    prefix = _only_one(complete, needed, checkpoint, config_name)
    if prefix:
        print_log(f"checkpoint {checkpoint}: the classifier lies below {prefix!r}", "current")
    return complete[prefix]


def _below(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return select(weights, lambda name: name.startswith(prefix), cut=prefix)


def _prefixes(names: Collection[str]) -> list[str]:
    """List what names begin with, each up to a dot; the empty one first."""
    parts = (name.split(".")[:-1] for name in names)
    ends = (".".join([*part[:depth], ""]) for part in parts for depth in range(len(part) + 1))
    return list(dict.fromkeys(["", *ends]))


def _plain_candidates(
    expected: Mapping[str, Tensor],
    needed: Collection[str],
    weights: Mapping[str, Tensor],
    prefixes: Collection[str],
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Find backbones with the names of torchvision or timm, each with the linear layer beside it.

    These libraries keep the backbone's modules and the linear layer side by side; mmpretrain puts
    the ones below ``backbone.`` (or ``backbone.timm_model.``) and the other below ``head.fc.``.
    """
    backbone = _common_prefix([name for name in needed if name.startswith("backbone.")])
    head = _common_prefix([name for name in needed if name.startswith("head.")])
    inside = [name.removeprefix(backbone) for name in expected if name.startswith(backbone)]
    for prefix in prefixes:
        found = {f"{backbone}{n}": f"{prefix}{n}" for n in inside if f"{prefix}{n}" in weights}
        if 2 * len(found) < len(inside):
            continue
        free = [p for p in prefixes if p and not any(n.startswith(p) for n in found.values())]
        layer = _linear_layer(expected, head, weights, free, prefix)
        if layer is not None:
            layer_names = (name for name in needed if name.startswith(head))
            found |= {name: f"{layer}{name.removeprefix(head)}" for name in layer_names}
        yield prefix, OrderedDict((name, weights[source]) for name, source in found.items())


def _common_prefix(names: Collection[str]) -> str:
    """The longest prefix, up to a dot, of all names."""
    common = set.intersection(*(set(_prefixes([name])) for name in names)) if names else {""}
    return max(common, key=len)


def _linear_layer(
    expected: Mapping[str, Tensor],
    head: str,
    weights: Mapping[str, Tensor],
    prefixes: Collection[str],
    backbone: str,
) -> str | None:
    """Find the prefix of the linear layer: the right shape counts most, then being near."""
    wanted = {n.removeprefix(head): v.shape for n, v in expected.items() if n.startswith(head)}
    layers = [
        prefix
        for prefix in prefixes
        if all(f"{prefix}{name}" in weights for name in wanted)
        and f"{prefix}weight" in weights
        and weights[f"{prefix}weight"].ndim == 2
    ]

    def order(prefix: str) -> tuple[bool, int]:
        fits = all(weights[f"{prefix}{name}"].shape == shape for name, shape in wanted.items())
        return fits, len(_common_prefix([f"{prefix}x", f"{backbone}x"]))

    nearest = max(map(order, layers), default=None)
    best = [layer for layer in layers if order(layer) == nearest]
    return best[0] if len(best) == 1 else None


def _only_one(
    complete: Mapping[str, Mapping[str, Tensor]],
    needed: Collection[str],
    checkpoint: str,
    config_name: str,
) -> str:
    """Choose among several places where the whole classifier lies."""
    for meant in _MEANT_FOR_USE:
        if preferred := [prefix for prefix in complete if meant in prefix.split(".")]:
            complete = {prefix: complete[prefix] for prefix in preferred}
            break
    first, *others = complete
    for other in others:
        if not all(torch.equal(complete[first][n], complete[other][n]) for n in needed):
            raise ValueError(
                f"checkpoint {checkpoint} holds the classifier in {config_name} below {first!r} "
                f"and, with other weights, below {other!r}. Save the one that is meant as a state "
                "dict of its own"
            )
    return first


def _check(
    expected: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    checkpoint: str,
    config_name: str,
) -> None:
    """Refuse weights of another shape, of whole numbers where there should be none, or not finite.

    Counters are left to torch.
    """
    used = {name: weights[name] for name in expected if name in weights}
    for name, value in used.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"checkpoint {checkpoint}: {name} has shape {tuple(value.shape)}, the classifier "
                f"in {config_name} {tuple(expected[name].shape)}. Give the checkpoint that belongs "
                "to this config"
            )
        if expected[name].is_floating_point() and not value.is_floating_point():
            raise ValueError(
                f"checkpoint {checkpoint}: {name} is of {value.dtype}, expected floating point. "
                "Give the checkpoint from before the conversion"
            )
    require_finite(used, checkpoint)
