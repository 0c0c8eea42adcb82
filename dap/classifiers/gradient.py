"""Maps by gradient, for classifiers whose logits are not the mean of a map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dap.cam import MappedViews
from dap.cam.activation import check_labels

from .layout import Layout, layouts
from .network import Call, Tap, observe

SCALE = 1024.0  # of logits, so that gradients in float16 do not vanish
MIN_REACHED = 0.9  # share of the cells that the logits must depend on


class Target(NamedTuple):
    """The feature map with respect to which gradients of logits are computed.

    Attributes:
        module: Name of the module that computes it.
        layout: How the output of the module holds the cells.
    """

    module: str
    layout: Layout


def find_target(network: nn.Module, images: Tensor) -> Target | None:
    """Find the last feature map whose cells the logits depend on.

    In a transformer with a class token, the logits do not depend on the patch tokens after the
    last block. They depend on the input of the attention in that block, which is the output of its
    first norm. In other networks the target is the map that is pooled. Only norms and modules with
    children are considered, which excludes queries and the hidden channels of a multilayer
    perceptron.

    Args:
        network: From images to logits, in evaluation mode.
        images: Normalised, shape (N, C, H, W).

    Returns:
        The target; None if the logits depend on no map.
    """
    with torch.inference_mode(False), torch.enable_grad():
        logits, calls = observe(network, images.clone().requires_grad_())
        if not torch.is_tensor(logits) or not logits.requires_grad:
            return None
        candidates = [(call, layout) for call in calls for layout in _layouts(call, images)]
        outputs: dict[int, Any] = {id(call.output): call.output for call, _ in candidates}
        grads = random_gradients(logits, list(outputs.values()))
    grad_of_output = dict(zip(outputs, grads, strict=True))
    size_hw = (images.shape[2], images.shape[3])
    for call, layout in reversed(candidates):
        grad = grad_of_output[id(call.output)]
        if grad is not None and _reached(layout.as_nchw(grad, size_hw)) >= MIN_REACHED:
            return Target(call.name, layout)
    return None


def random_gradients(logits: Tensor, tensors: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Compute gradients of a random combination of logits, to see what the logits depend on.

    The weights are random because the sum over all classes can have a gradient of zero.

    Args:
        logits: Shape (N, K), with a graph.
        tensors: Tensors with respect to which gradients are computed.

    Returns:
        The gradient with respect to each tensor; None if the logits do not depend on it.
    """
    if not tensors:
        return []
    weights = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0))
    total = (logits * weights.to(logits)).sum()
    return torch.autograd.grad(total, list(tensors), allow_unused=True)


def gradient_maps(
    tap: Tap, target: Target, images: Tensor, labels: Sequence[Tensor], flips: int
) -> MappedViews:
    r"""Compute label-specific maps of a batch of views by Grad-CAM.

    Let :math:`t_i` be the features of cell i and :math:`g_i` the gradient of the logit of a label
    with respect to them. The map is :math:`\bar g \cdot t_i`, where :math:`\bar g` is the mean of
    :math:`g_i` over the cells (Selvaraju et al. 2017). Negative values are kept, since eq. 1 shifts
    the minimum to zero. With average pooling and one linear layer, :math:`\bar g` is the row of
    that layer divided by the number of cells, and the map is that of Zhou et al. (2016).

    Args:
        tap: Tap on the module of ``target``.
        target: The feature map with respect to which gradients are computed.
        images: Normalised views, ordered by view and then by image, shape (F · N, C, H, W).
        labels: Classes of each of N images, each of shape (L,).
        flips: F, the number of views per image.

    Returns:
        Maps, the features of the target, and the logits, summed over the views of an image,
        shape (N, K).

    Raises:
        ValueError: If a label is out of range.
    """
    size_hw = (images.shape[2], images.shape[3])
    # The caller may be in inference mode, which would not record a graph.
    with torch.inference_mode(False), torch.enable_grad():
        output, logits = tap.with_graph(images)
        features = target.layout.as_nchw(output.detach(), size_hw)

        def compute_maps(grads: list[Tensor]) -> Tensor:
            weight = target.layout.as_nchw(grads[0], size_hw).mean(dim=(2, 3))
            return torch.einsum("nchw,nc->nhw", features.to(weight.dtype), weight)

        by_view = features.unflatten(0, (flips, len(labels)))
        return maps_of_labels([output], logits, labels, by_view, compute_maps)


def maps_of_labels(
    tensors: Sequence[Tensor],
    logits: Tensor,
    labels: Sequence[Tensor],
    features: Tensor,
    compute_maps: Callable[[list[Tensor]], Tensor],
) -> MappedViews:
    """Compute the maps of all labels, each from the gradients of its logit.

    One backward pass computes the maps of the first label of all images, the next one those of
    the second label, and so on.

    Args:
        tensors: Tensors in the graph of ``logits``, with respect to which gradients are computed.
        logits: Logits of all views, ordered by view and then by image, shape (F · N, K).
        labels: Classes of each of N images.
        features: Features of the views, for the result, shape (F, N, D, h, w).
        compute_maps: Computes maps (F · N, h, w) from the gradients with respect to ``tensors``.

    Returns:
        Maps in float32, ``features`` in float32, and the logits, summed over the views of an
        image, shape (N, K).

    Raises:
        ValueError: If a label is out of range.
    """
    if labels:
        check_labels(torch.cat(list(labels)), logits.shape[1])
    views = (len(features), len(labels))
    by_rank = []  # maps (F, N, h, w) of the first label of each image, of the second …
    for rank in range(max((len(image_labels) for image_labels in labels), default=0)):
        grads = _gradients(tensors, logits, labels, rank)
        by_rank.append(compute_maps(grads).unflatten(0, views))
    maps_by_image = [by_rank[k][:, i] for i in range(len(labels)) for k in range(len(labels[i]))]
    if maps_by_image:
        maps = torch.stack(maps_by_image, dim=1).float()
    else:
        maps = features.new_zeros((len(features), 0, *features.shape[-2:])).float()
    summed_logits = logits.detach().unflatten(0, views).sum(dim=0)
    return MappedViews(maps, features.float(), summed_logits.float())


def _gradients(
    tensors: Sequence[Tensor], logits: Tensor, labels: Sequence[Tensor], rank: int
) -> list[Tensor]:
    """Gradients of the logit of label number ``rank`` per image; 0 for images with fewer labels."""
    images = [i for i, image_labels in enumerate(labels) if len(image_labels) > rank]
    flips = len(logits) // len(labels)
    classes = torch.stack([labels[i][rank] for i in images]).long().repeat(flips)
    views = torch.tensor([view * len(labels) + i for view in range(flips) for i in images])
    selected = logits[views.to(logits.device), classes.to(logits.device)]
    grads = torch.autograd.grad(selected.sum() * SCALE, list(tensors), retain_graph=True)
    return [grad.to(torch.promote_types(grad.dtype, torch.float32)) / SCALE for grad in grads]


def _layouts(call: Call, images: Tensor) -> list[Layout]:
    """The layouts that the output of a norm or of a module with children may have."""
    output, module = call.output, call.module
    named_norm = "norm" in type(module).__name__.lower()
    if output is None or not output.requires_grad or not (named_norm or any(module.children())):
        return []
    return list(layouts(output, len(images), (images.shape[2], images.shape[3])))


def _reached(grad: Tensor) -> float:
    """Share of the cells whose gradient is not zero, given gradients (N, C, h, w)."""
    return float((grad != 0).any(dim=1).float().mean())
