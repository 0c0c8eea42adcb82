"""Classifiers whose logits are computed from a feature map by pooling and one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .layout import Layout, layouts
from .network import Call


class Readout(NamedTuple):
    r"""Average pooling, an optional norm, and one linear layer.

    Let :math:`t_i \in R^C` be the features of cell i, :math:`\bar t` their mean over the cells, and
    w, b the linear layer of a class. Without a norm the logit is :math:`w \cdot \bar t + b`, the
    mean of the map :math:`w \cdot t_i` plus a constant (Zhou et al. 2016).

    With a LayerNorm (γ, β, ε) between the two, let m be the mean and
    :math:`\sigma = \sqrt{\mathrm{Var}(\bar t) + \varepsilon}` the standard deviation of the C
    components of :math:`\bar t`. Then

    .. math:: \mathrm{logit} = w \cdot (\gamma \odot (\bar t - m 1) / \sigma + \beta) + b
              = (\gamma \odot w) \cdot (\bar t - m 1) / \sigma + w \cdot \beta + b.

    Since :math:`m = 1 \cdot \bar t / C`, subtracting it from :math:`\bar t` is equivalent to
    subtracting the mean of :math:`\gamma \odot w` from that vector: with
    :math:`w' = \gamma \odot w - \mathrm{mean}(\gamma \odot w)`,

    .. math:: \mathrm{logit} = \mathrm{mean}_i(w' \cdot t_i) / \sigma + w \cdot \beta + b.

    So :math:`w' \cdot t_i / \sigma` is the map of the class: its mean is the logit, up to a
    constant per class. σ is one positive number per view, the same for all classes. It is kept in
    the maps, so that views have the same weights as in averaged logits; in the map of a single view
    it is removed by eq. 1. A BatchNorm with fixed statistics instead of the LayerNorm is an affine
    function and is merged into the linear layer.

    Attributes:
        module: Name of the module whose output is pooled.
        layout: Layout of that output.
        weight: w or w' of all classes, shape (K, C).
        bias: b, or :math:`w \cdot \beta + b`, shape (K,).
        eps: ε of the LayerNorm; None without one.
    """

    module: str
    layout: Layout
    weight: Tensor
    bias: Tensor
    eps: float | None

    def scaled(self, features: Tensor) -> Tensor:
        """Divide features (N, C, h, w) by the σ of each image, if there is a LayerNorm."""
        return features if self.eps is None else features / deviation(features, self.eps)


def deviation(features: Tensor, eps: float) -> Tensor:
    """Compute the σ of a LayerNorm after average pooling of features (N, C, h, w).

    Returns:
        Shape (N, 1, 1, 1).
    """
    pooled = features.float() if features.dtype.itemsize < 4 else features
    variance = pooled.mean(dim=(2, 3)).var(dim=1, unbiased=False)
    return (variance + eps).sqrt().to(features.dtype)[:, None, None, None]


def find_readout(
    calls: Sequence[Call], logits: Tensor, image_size_hw: tuple[int, int]
) -> Readout | str:
    """Find the feature map that is pooled, the norm and the linear layer, from one forward pass.

    Args:
        calls: The calls of the modules of the network.
        logits: Output of the network, shape (N, K).
        image_size_hw: Height and width of the images.

    Returns:
        The readout; or a phrase that says why there is none.
    """
    last = next((call for call in reversed(calls) if _makes_logits(call, logits)), None)
    if last is None or last.input is None:
        return _without_linear_layer(calls, logits, image_size_hw)
    weight, bias = _linear(last.module)
    vector, eps = last.input.flatten(1), None
    if vector.shape[1] != weight.shape[1]:
        return "the input of the linear layer has more than one feature vector per image"
    while eps is None:
        norm = next((call for call in reversed(calls) if _normalises(call, vector)), None)
        if norm is None or norm.input is None:
            break
        weight, bias, eps = _merge_norm(norm.module, weight, bias)
        vector = norm.input.flatten(1)
    pooled = _pooled(calls, vector, image_size_hw)
    if pooled is None:
        return "the input of the linear layer is not the mean of a feature map"
    return Readout(*pooled, weight, bias, eps)


def nearly_equal(actual: Tensor, expected: Tensor) -> bool:
    """Whether two tensors differ by at most 1e-3 (16-bit: 2e-2) of the largest magnitude."""
    if actual.shape != expected.shape:
        return False
    tolerance = 1e-3 if expected.dtype in (torch.float32, torch.float64) else 2e-2
    return bool((actual - expected).abs().max() <= tolerance * expected.abs().max() + 1e-12)


def _makes_logits(call: Call, logits: Tensor) -> bool:
    module, output = call.module, call.output
    point = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    if output is None or not (isinstance(module, nn.Linear) or point):
        return False
    return output.numel() == logits.numel() and torch.equal(output.reshape(logits.shape), logits)


def _without_linear_layer(
    calls: Sequence[Call], logits: Tensor, image_size_hw: tuple[int, int]
) -> Readout | str:
    """Find a readout whose pooled feature map has one channel per class, as in SqueezeNet."""
    pooled = _pooled(calls, logits, image_size_hw)
    if pooled is None:
        return "its logits are not the output of one linear layer"
    identity = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
    return Readout(*pooled, identity, torch.zeros_like(identity[0]), None)


def _linear(module: nn.Module) -> tuple[Tensor, Tensor]:
    layer: Any = module
    weight = layer.weight.detach().flatten(1)
    bias = torch.zeros_like(weight[:, 0]) if layer.bias is None else layer.bias.detach()
    return weight, bias


def _normalises(call: Call, vector: Tensor) -> bool:
    """Whether a call is a norm that computed these vectors, from one vector per image.

    The result of the module is compared, not its class, because libraries define their own
    LayerNorm.
    """
    inputs, output = call.input, call.output
    if inputs is None or output is None or not inputs.numel() == output.numel() == vector.numel():
        return False
    is_source = torch.equal(output.flatten(1), vector)
    return is_source and _is_norm(call.module, inputs.flatten(1), vector)


def _is_norm(module: nn.Module, inputs: Tensor, output: Tensor) -> bool:
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return module.running_mean is not None
    weight, bias, eps = (getattr(module, name, None) for name in ("weight", "bias", "eps"))
    channels = inputs.shape[1]
    if not isinstance(eps, float) or any(
        value is not None and tuple(value.shape) != (channels,) for value in (weight, bias)
    ):
        return False
    normed = nn.functional.layer_norm(inputs, (channels,), weight, bias, eps)
    return nearly_equal(output, normed)


def _merge_norm(norm: Any, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, float | None]:
    """Merge a norm into the linear layer that follows it, see :class:`Readout`."""
    gamma = torch.ones_like(weight[0]) if norm.weight is None else norm.weight.detach()
    beta = torch.zeros_like(gamma) if norm.bias is None else norm.bias.detach()
    bias = bias + weight @ beta
    weight = weight * gamma
    if getattr(norm, "running_mean", None) is None:
        return weight - weight.mean(dim=1, keepdim=True), bias, norm.eps
    weight = weight / (norm.running_var + norm.eps).sqrt()
    return weight, bias - weight @ norm.running_mean, None


def _pooled(
    calls: Sequence[Call], vector: Tensor, image_size_hw: tuple[int, int]
) -> tuple[str, Layout] | None:
    """Find the last module whose output, averaged over the cells, is equal to these vectors."""
    for call in reversed(calls):
        if call.last_output is None:
            continue
        for layout in layouts(call.last_output, len(vector), image_size_hw, whole_pixels=False):
            features = layout.as_nchw(call.last_output, image_size_hw)
            if features.shape[1] == vector.shape[1] and nearly_equal(
                features.mean(dim=(2, 3)), vector
            ):
                return call.name, layout
    return None
