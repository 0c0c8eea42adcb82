"""Folding the batch norms of a backbone into its convolutions, for a faster forward pass."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .network import Call, observe

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TOLERANCE = 1e-6  # relative difference of features in float64


def fold_batch_norm(backbone: nn.Module, probe: Tensor) -> nn.Module:
    """Copy a backbone for inference, with batch norms folded into the convolutions before them.

    In evaluation mode a batch norm is ``y = (x - mean) / sqrt(var + eps) * gamma + beta``: one
    factor and one offset per channel, which the weight and bias of a convolution can include. The
    convolution before each norm is detected in a forward pass: the input of the norm must be the
    output tensor of the convolution, and no other operation may read it. A norm with child
    modules, such as the activation in ``BatchNormAct2d`` of timm, is replaced by these. (mmcv's
    ``fuse_conv_bn`` pairs modules by their order of definition. It changes the features of
    DenseNets, and those of EfficientNets of timm, whose activations it removes.)

    The search, and the comparison of the features before and after, are done in float64 on the
    CPU, so that the result is the same on each device and in each precision.

    Args:
        backbone: A backbone on any device; not changed.
        probe: Images for the backbone, shape (N, C, H, W).

    Returns:
        A copy in evaluation mode. If folded features would differ by more than ``TOLERANCE`` of the
        largest one, its norms are not folded, and a warning is logged.
    """
    result = copy.deepcopy(backbone)
    result.eval()
    exact = copy.deepcopy(result).cpu().double()
    try:
        folded = _fold_verified(exact, probe.detach().cpu().double())
    except RuntimeError as error:  # an operation is not implemented in float64 or on the CPU
        _warn(f"{type(error).__name__}: {error}")
        return result
    # Into another copy, because the forward may have cached tensors in float64.
    for name in folded.values():
        target: Any = result.get_submodule(name)
        source: Any = exact.get_submodule(name)
        like = {"dtype": target.weight.dtype, "device": target.weight.device}
        target.weight = nn.Parameter(source.weight.detach().to(**like), requires_grad=False)
        target.bias = nn.Parameter(source.bias.detach().to(**like), requires_grad=False)
    _remove(result, {result.get_submodule(name) for name in folded})
    return result


def _fold_verified(model: nn.Module, probe: Tensor) -> dict[str, str]:
    """Fold the norms of a float64 model in place.

    Returns:
        Name of each folded norm → name of its convolution; empty if the features changed.
    """
    with torch.no_grad():
        with _Reads() as reads:
            before, calls = observe(model, probe)
        pairs = _pairs(calls, reads.count)
        names = {call.module: call.name for call in calls}
        folded = {names[norm]: names[convolution] for norm, convolution in pairs.items()}
        for norm, convolution in pairs.items():
            convolution.weight, convolution.bias = fuse_conv_bn_weights(
                convolution.weight, convolution.bias, norm.running_mean, norm.running_var,
                norm.eps, norm.weight, norm.bias,
            )  # fmt: skip
        _remove(model, set(pairs))
        difference = _difference(before, model(probe))
    if not difference <= TOLERANCE:  # also false for NaN
        _warn(f"the features would differ by {difference:.2g} of the largest")
        return {}
    return folded


def _pairs(calls: Sequence[Call], reads: Counter[int]) -> dict[Any, Any]:
    """Return norm → convolution, for norms that are the only reader of a convolution's output."""
    times = Counter(call.module for call in calls)
    made_by = {id(call.output): call.module for call in calls if _is_convolution(call.module)}
    candidates = {
        call.module: made_by[id(call.input)]
        for call in calls
        if _is_norm(call.module) and id(call.input) in made_by and reads[id(call.input)] == 1
    }
    return {norm: conv for norm, conv in candidates.items() if times[norm] == times[conv] == 1}


class _Reads(TorchDispatchMode):
    """Counts the operations that read each tensor, by id; keeps the tensors, so no id is reused."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self._tensors: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [value for value in tree_leaves((args, kwargs)) if torch.is_tensor(value)]
        self.count.update(map(id, tensors))
        self._tensors += tensors
        return func(*args, **(kwargs or {}))


def _is_convolution(module: nn.Module) -> bool:
    """Whether a module convolves with a parameter, not with a weight computed on each call."""
    return isinstance(module, CONVOLUTIONS) and "weight" in module._parameters


def _is_norm(module: nn.Module) -> bool:
    """Whether a module normalises with running statistics."""
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def _remove(model: nn.Module, norms: set[nn.Module]) -> None:
    """Replace each norm by its child modules, such as an activation, or by the identity."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in norms:
            model.set_submodule(name, nn.Sequential(*module.children()).eval())


def _difference(before: Any, after: Any) -> float:
    """Return the largest difference of an output, relative to its largest feature."""
    pairs = zip(tree_leaves(before), tree_leaves(after), strict=True)
    differences = [
        (old - new).abs().max() / old.abs().max().clamp(min=1e-12)
        for old, new in pairs
        if torch.is_tensor(old) and old.is_floating_point()
    ]
    return float(torch.stack(differences).max())  # NaN if one is


def _warn(reason: str) -> None:
    print_log(f"batch norms are not folded, {reason}", "current", logging.WARNING)
