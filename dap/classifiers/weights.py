"""Loading the weights of a checkpoint of any library into a classifier."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from dap.checkpoint import load_weights, renamed, require_finite

# Preferred among several networks in a checkpoint: the averaged teacher of DINO, the trained
# encoder of MoCo, the online network of BYOL.
_PREFERRED_NETWORKS = ("teacher", "encoder_q", "online_network", "online_encoder")
_WRAPPER = re.compile(r"(^|(?<=\.))module\.")
# Weights of early versions of torch lack these counters, which only training uses.
_COUNTER = ".num_batches_tracked"


def load_classifier_weights(model: nn.Module, checkpoint: str, config_name: str) -> dict[str, Any]:
    """Load the weights of a checkpoint into an mmpretrain classifier.

    The names may be those of mmpretrain (``backbone.conv1.weight``, ``head.fc.weight``) or those of
    torchvision and timm (``conv1.weight``, ``fc.weight`` or ``classifier.weight``), with any prefix
    that all weights of the model share. Half precision is converted.

    Args:
        model: Classifier with ``backbone`` and ``head``, or a network of another library; changed
            in place, but not if an error is raised.
        checkpoint: File or URL that :func:`dap.checkpoint.load_weights` reads.
        config_name: Origin of the model, for messages.

    Returns:
        The ``meta`` of the checkpoint.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the file is no checkpoint, lacks weights of the model, has weights of another
            shape, weights that are not finite or not in floating point, or several different copies
            of the model.
    """
    weights, meta = load_weights(checkpoint)
    expected = model.state_dict()
    weights = _without_inner_wrappers(weights, expected)
    weights = _renamed_by_transformers(model, weights)
    sources = _find_sources(expected, weights, checkpoint, config_name)
    fitting = {name: weights[source] for name, source in sources.items()}
    _check_kinds(expected, fitting, checkpoint, config_name)
    require_finite({source: weights[source] for source in sources.values()}, checkpoint)
    _check_unused(sources, weights, checkpoint, config_name)
    model.load_state_dict(fitting, strict=False)
    return meta


def _without_inner_wrappers(
    weights: dict[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Remove DataParallel's ``module.`` inside of names, unless names of the model have it."""
    names = {_WRAPPER.sub("", name) for name in weights}
    if len(names) < len(weights) or any(_WRAPPER.search(name) for name in expected):
        return weights
    return renamed(weights, lambda name: _WRAPPER.sub("", name))


def _renamed_by_transformers(model: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights to the names of the installed version of transformers.

    ``save_pretrained`` of transformers 5 writes the names of transformers 4 for many architectures,
    and ``from_pretrained`` translates them. If it cannot match all weights, none is renamed.
    """
    load = getattr(model, "from_pretrained", None)
    if load is None or set(model.state_dict()) <= weights.keys():
        return weights
    loaded, report = load(None, config=model.config, state_dict=dict(weights),
                          output_loading_info=True)  # fmt: skip
    if report["missing_keys"] or report["mismatched_keys"]:
        return weights
    state: dict[str, Tensor] = loaded.state_dict()
    return state


def _find_sources(
    expected: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    checkpoint: str,
    config_name: str,
) -> dict[str, str]:
    """Find the name in the checkpoint of each weight that the model expects."""
    needed = {name for name in expected if not name.endswith(_COUNTER)}
    prefixes = _prefixes(weights)
    candidates = [
        {name: f"{prefix}{name}" for name in expected if f"{prefix}{name}" in weights}
        for prefix in prefixes
    ]
    if not any(needed <= sources.keys() for sources in candidates):
        candidates += _plain_candidates(expected, needed, weights, prefixes)
    complete = [sources for sources in candidates if needed <= sources.keys()]
    if not complete:
        nearest = max(candidates, key=lambda sources: len(needed & sources.keys()))
        missing = sorted(needed - nearest.keys())
        raise ValueError(
            f"checkpoint {checkpoint} is not of the classifier in {config_name}: {len(missing)} of "
            f"{len(needed)} weights are missing, such as {missing[0]}; it holds {len(weights)}, "
            f"such as {next(iter(weights))}. Give the checkpoint that belongs to this config"
        )
    return _only_one(complete, weights, checkpoint, config_name)


def _prefixes(names: Collection[str]) -> list[str]:
    """List all prefixes of names that end at a dot, the empty one first."""
    parts = (name.split(".")[:-1] for name in names)
    ends = (".".join([*part[:depth], ""]) for part in parts for depth in range(len(part) + 1))
    return list(dict.fromkeys(["", *ends]))


def _plain_candidates(
    expected: Mapping[str, Tensor],
    needed: Collection[str],
    weights: Mapping[str, Tensor],
    prefixes: Collection[str],
) -> Iterator[dict[str, str]]:
    """Find backbones with the names of torchvision or timm, each with its linear layer.

    In these libraries, the modules of the backbone and the linear layer have the same parent. In
    mmpretrain, the modules are below ``backbone.`` (or ``backbone.timm_model.``), and the linear
    layer is below ``head.fc.``.
    """
    backbone = _common_prefix([name for name in needed if name.startswith("backbone.")])
    head = _common_prefix([name for name in needed if name.startswith("head.")])
    inside = [name.removeprefix(backbone) for name in expected if name.startswith(backbone)]
    for prefix in prefixes:
        sources = {f"{backbone}{n}": f"{prefix}{n}" for n in inside if f"{prefix}{n}" in weights}
        if 2 * len(sources) < len(inside):
            continue
        in_backbone = set(_prefixes(sources.values()))
        others = [other for other in prefixes if other not in in_backbone]
        layer = _linear_layer(expected, head, weights, others, prefix)
        if layer is not None:
            layer_names = (name for name in expected if name.startswith(head))
            sources |= {name: f"{layer}{name.removeprefix(head)}" for name in layer_names}
        yield sources


def _common_prefix(names: Collection[str]) -> str:
    """Return the longest prefix, up to a dot, that all names share."""
    common = set.intersection(*(set(_prefixes([name])) for name in names)) if names else {""}
    return max(common, key=len)


def _linear_layer(
    expected: Mapping[str, Tensor],
    head: str,
    weights: Mapping[str, Tensor],
    prefixes: Collection[str],
    backbone: str,
) -> str | None:
    """Find the prefix of the linear layer, by its shape, then by its distance to the backbone."""
    shapes = {n.removeprefix(head): v.shape for n, v in expected.items() if n.startswith(head)}
    layers = [
        prefix
        for prefix in prefixes
        if all(f"{prefix}{name}" in weights for name in shapes)
        and f"{prefix}weight" in weights
        and weights[f"{prefix}weight"].ndim == 2
    ]

    def rank(prefix: str) -> tuple[bool, int]:
        fits = all(weights[f"{prefix}{name}"].shape == shape for name, shape in shapes.items())
        return fits, len(_common_prefix([f"{prefix}x", f"{backbone}x"]))

    highest = max(map(rank, layers), default=None)
    best = [layer for layer in layers if rank(layer) == highest]
    return best[0] if len(best) == 1 else None


def _only_one(
    complete: Sequence[dict[str, str]],
    weights: Mapping[str, Tensor],
    checkpoint: str,
    config_name: str,
) -> dict[str, str]:
    """Choose among several copies of the whole classifier; log the prefix if it has one."""
    for network in _PREFERRED_NETWORKS:
        if preferred := [s for s in complete if network in _prefix(s).split(".")]:
            complete = preferred
            break
    first, *others = complete
    for other in others:
        both = first.keys() & other.keys()
        if not all(_is_same(weights[first[name]], weights[other[name]]) for name in both):
            raise ValueError(
                f"checkpoint {checkpoint} holds the classifier in {config_name} below "
                f"{_prefix(first)!r} and, with other weights, below {_prefix(other)!r}. Save the "
                "one to be used as a separate state dict"
            )
    if first.keys() != set(first.values()):
        print_log(
            f"checkpoint {checkpoint}: the classifier's {next(iter(first))} is "
            f"{next(iter(first.values()))}, and so on",
            logger="current",
        )
    return first


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _prefix(sources: Mapping[str, str], part: str = "backbone.") -> str:
    """Return the prefix in the checkpoint of a part of the classifier.

    For a network of another library, which has no such parts, it is the prefix of the network.
    """
    if not any(name.startswith("backbone.") for name in sources):
        name, source = next(iter(sources.items()))
        return source.removesuffix(name)
    return _common_prefix([source for name, source in sources.items() if name.startswith(part)])


def _check_kinds(
    expected: Mapping[str, Tensor],
    fitting: Mapping[str, Tensor],
    checkpoint: str,
    config_name: str,
) -> None:
    """Refuse weights of another shape, and integers in place of floating point."""
    for name, value in fitting.items():
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


def _check_unused(
    sources: Mapping[str, str], weights: Mapping[str, Tensor], checkpoint: str, config_name: str
) -> None:
    """Refuse a larger network, such as ResNet-34 for ResNet-18; log other unused weights.

    A larger network has unused weights in modules of which other weights are used.
    """
    used = set(sources.values())
    backbone = _prefix(sources)
    whole = _common_prefix([backbone, _prefix(sources, "head.")])
    modules = {_module(name, backbone) or _module(name, whole) for name in used}
    unused = [name for name in weights if name not in used]
    inside = [n for n in unused if (_module(n, backbone) or _module(n, whole)) in modules]
    if inside:
        raise ValueError(
            f"checkpoint {checkpoint} is of a larger network than the classifier in {config_name}: "
            f"{len(inside)} of its weights have no place, such as {inside[0]}. Give the checkpoint "
            "that belongs to this config"
        )
    if unused:
        print_log(
            f"checkpoint {checkpoint}: {len(unused)} weights are not used, such as {unused[0]}",
            logger="current",
        )


def _module(name: str, prefix: str) -> str:
    """Return the module directly below a prefix of a weight's name; '' without that prefix."""
    return prefix + name.removeprefix(prefix).split(".")[0] if name.startswith(prefix) else ""
