"""Fold the batch norms of a backbone into its convolutions: the same features in less time."""

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
TOLERANCE = 1e-6  # in float64


def fold_batch_norm(backbone: nn.Module, probe: Tensor) -> nn.Module:
    """Copy a backbone for inference, with batch norms folded into the convolutions before them.

    In evaluation mode a batch norm is ``y = (x - mean) / sqrt(var + eps) * gamma + beta``, one
    factor and one offset a channel, which a convolution's weights and bias can hold. Which norm
    follows which convolution is observed on the probe: the tensor that enters the norm must be
    the very output of the convolution, and nothing else may read it. A subclass of batch norm
    that contains more, as timm's ``BatchNormAct2d`` its activation, leaves that in its place.
    (mmcv's ``fuse_conv_bn`` pairs them by their order of definition, which changes the features of
    EfficientNets of timm, whose activations it drops, and of DenseNets.)

    The search and a comparison of the features before and after are done in float64 on the CPU,
    so that they have the same outcome on every device and in every precision.

    Args:
        backbone: Any backbone, on any device; not changed.
        probe: Images it takes, shape (N, C, H, W).

    Returns:
        A copy in evaluation mode; with its norms as they were, and a warning in the log, where
        the folded features would differ by more than ``TOLERANCE`` of the largest.
    """
    result = copy.deepcopy(backbone)
    result.eval()
    exact = copy.deepcopy(result).cpu().double()
    try:
        folded = _fold_verified(exact, probe.detach().cpu().double())
    except RuntimeError as error:  # an operation that has no float64 or no CPU
        _warn(f"{type(error).__name__}: {error}")
        return result
    _take_over(result, exact, folded)
    return result


def _fold_verified(model: nn.Module, probe: Tensor) -> dict[str, str]:
    """Fold the norms of a float64 model in place.

    Returns:
        Names of the folded norms and of their convolutions; none if the features changed.
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
    """Watch a forward; fill the dictionary norm → convolution when it is over."""
    pairs: dict[Any, Any] = {}
    # Both keep their tensors, so that the id() of one is not reused.
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
    """Replace each norm by its child modules, such as an activation, or by nothing."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in norms:
            model.set_submodule(name, nn.Sequential(*module.children()).eval())


def _take_over(model: nn.Module, exact: nn.Module, folded: dict[str, str]) -> None:
    """Copy the folded weights of the float64 copy into the model, in its dtype and device."""
    for name in folded.values():
        target: Any = model.get_submodule(name)
        source: Any = exact.get_submodule(name)
        like = {"dtype": target.weight.dtype, "device": target.weight.device}
        target.weight = nn.Parameter(source.weight.detach().to(**like), requires_grad=False)
        target.bias = nn.Parameter(source.bias.detach().to(**like), requires_grad=False)
    _remove(model, {model.get_submodule(name) for name in folded})


def _tensors(features: Any) -> list[Tensor]:
    several = features if isinstance(features, tuple | list) else [features]
    return [tensor.clone() for tensor in several]


def _difference(before: Tensor, after: Tensor) -> float:
    """Largest difference as a share of the largest feature."""
    return float((before - after).abs().max() / before.abs().max().clamp(min=1e-12))


def _warn(reason: str) -> None:
    print_log(f"batch norms are not folded, {reason}", "current", logging.WARNING)
