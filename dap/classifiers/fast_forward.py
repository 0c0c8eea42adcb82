"""Folding the batch norms of a backbone into its convolutions, for a faster forward."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TOLERANCE = 1e-6  # relative difference of features in float64


def fold_batch_norm(backbone: nn.Module, probe: Tensor) -> nn.Module:
    """Copy a backbone for inference, with batch norms folded into the convolutions before them.

    In evaluation mode a batch norm is ``y = (x - mean) / sqrt(var + eps) * gamma + beta``: one
    factor and one offset per channel, which the weight and bias of a convolution can include. The
    convolution before each norm is found in a forward of the probe: the input of the norm must be
    the output tensor of the convolution, and no other operation may read it. A norm with child
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
    _copy_folded(result, exact, folded)
    return result


def _fold_verified(model: nn.Module, probe: Tensor) -> dict[str, str]:
    """Fold the norms of a float64 model in place.

    Returns:
        Name of each folded norm → name of its convolution; empty if the features changed.
    """
    with torch.no_grad():
        with _observed(model) as pairs:
            before = _tensors(model(probe))
        names = {module: name for name, module in model.named_modules()}
        folded = {names[norm]: names[convolution] for norm, convolution in pairs.items()}
        for norm, convolution in pairs.items():
            _fold(convolution, norm)
        _remove(model, set(pairs))
        after = _tensors(model(probe))
    difference = max(map(_difference, before, after), default=0.0)
    if not difference <= TOLERANCE:  # also false for NaN
        _warn(f"the features would differ by {difference:.2g} of the largest")
        return {}
    return folded


@contextmanager
def _observed(model: nn.Module) -> Iterator[dict[Any, Any]]:
    """Observe a forward in this context; fill the dictionary norm → convolution at its end."""
    pairs: dict[Any, Any] = {}
    # Both keep the tensors alive, so that no id() is reused.
    made_by: dict[int, tuple[nn.Module, Tensor]] = {}
    read_by: dict[nn.Module, Tensor] = {}
    calls: Counter[nn.Module] = Counter()

    def after(module: nn.Module, _: Any, output: Tensor) -> None:
        calls[module] += 1
        made_by[id(output)] = (module, output)
        reads.count[id(output)] = 0  # counts of an earlier tensor with this id

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] += 1
        read_by[module] = inputs[0]

    reads = _Reads()
    hooks = [m.register_forward_hook(after) for m in model.modules() if _is_convolution(m)]
    hooks += [m.register_forward_pre_hook(before) for m in model.modules() if _is_norm(m)]
    try:
        with reads:
            yield pairs
    finally:
        for hook in hooks:
            hook.remove()
    for norm, tensor in read_by.items():
        if id(tensor) in made_by and reads.count[id(tensor)] == 1:
            convolution = made_by[id(tensor)][0]
            if calls[norm] == calls[convolution] == 1:
                pairs[norm] = convolution


class _Reads(TorchDispatchMode):
    """Counts how many operations take each tensor, by its id."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat = tree_leaves((args, kwargs))
        self.count.update(id(value) for value in flat if torch.is_tensor(value))
        return func(*args, **(kwargs or {}))


def _is_convolution(module: nn.Module) -> bool:
    """Whether a module convolves with a parameter, not with a weight computed on each call."""
    return isinstance(module, CONVOLUTIONS) and "weight" in module._parameters


def _is_norm(module: nn.Module) -> bool:
    """Whether a module normalises with running statistics."""
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def _fold(convolution: Any, norm: Any) -> None:
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps,
        norm.weight, norm.bias,
    )  # fmt: skip


def _remove(model: nn.Module, norms: set[nn.Module]) -> None:
    """Replace each norm by its child modules, such as an activation, or by the identity."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in norms:
            model.set_submodule(name, nn.Sequential(*module.children()).eval())


def _copy_folded(model: nn.Module, exact: nn.Module, folded: dict[str, str]) -> None:
    """Copy the folded weights of the float64 copy to the model, in its dtype and on its device."""
    for name in folded.values():
        target: Any = model.get_submodule(name)
        source: Any = exact.get_submodule(name)
        like = {"dtype": target.weight.dtype, "device": target.weight.device}
        target.weight = nn.Parameter(source.weight.detach().to(**like), requires_grad=False)
        target.bias = nn.Parameter(source.bias.detach().to(**like), requires_grad=False)
    _remove(model, {model.get_submodule(name) for name in folded})


def _tensors(features: Any) -> list[Tensor]:
    tensors = features if isinstance(features, tuple | list) else [features]
    return [tensor.clone() for tensor in tensors]


def _difference(before: Tensor, after: Tensor) -> float:
    """Return the largest difference, relative to the largest feature."""
    return float((before - after).abs().max() / before.abs().max().clamp(min=1e-12))


def _warn(reason: str) -> None:
    print_log(f"batch norms are not folded, {reason}", "current", logging.WARNING)
