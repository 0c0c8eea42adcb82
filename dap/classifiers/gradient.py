"""Maps by gradient, for classifiers whose logits are not the mean of a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dap.cam import MappedViews

from .layout import Layout, layouts
from .network import Call, Tap, observe

SCALE = 1024.0  # of logits, so that gradients in float16 do not vanish
LEAST_REACHED = 0.9  # share of the cells that the logits must depend on


class Target(NamedTuple):
    """The feature map that logits are differentiated by.

    Attributes:
        module: Name of the module that makes it.
        layout: Where the cells lie in its output.
    """

    module: str
    layout: Layout


def find_target(network: nn.Module, images: Tensor) -> Target | None:
    """Find the last feature map that the logits depend on, cell by cell.

    In a transformer with a class token, the patches that leave the last block have no influence on
    the logits; what its attention reads has: the output of the block's first norm. Elsewhere it is
    the map that is pooled. Only norms and modules with children count, so that neither queries nor
    the inner channels of a multilayer perceptron are taken for features.

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
        found = [(call, layout) for call in calls for layout in _layouts(call, images)]
        unique: dict[int, Any] = {id(call.output): call.output for call, _ in found}
        # Random weights, as the sum over all classes could have no gradient.
        weights = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0))
        total = (logits * weights.to(logits)).sum()
        grads: Sequence[Any] = (
            torch.autograd.grad(total, list(unique.values()), allow_unused=True) if unique else ()
        )
    by_id = dict(zip(unique, grads, strict=True))
    size_hw = (images.shape[2], images.shape[3])
    for call, layout in reversed(found):
        grad = by_id[id(call.output)]
        if grad is not None and _reached(layout.as_nchw(grad, size_hw)) >= LEAST_REACHED:
            return Target(call.name, layout)
    return None


def gradient_maps(
    tap: Tap, layout: Layout, images: Tensor, labels: Sequence[Tensor], flips: int
) -> MappedViews:
    r"""Compute label-specific maps of a batch of views by Grad-CAM.

    Let :math:`t_i` be the features of cell i and :math:`g_i` the gradient of the logit of a label
    by them. The map is :math:`\bar g \cdot t_i` with the mean :math:`\bar g` over the cells
    (Selvaraju et al. 2017). Nothing is cut off at zero, as eq. 1 moves the smallest value to zero.
    Behind average pooling and one linear layer :math:`\bar g` is that layer's row over the number
    of cells, and the map that of Zhou et al. 2016.

    Args:
        tap: On the target.
        layout: Of the target.
        images: ``flips`` views of each of N images: all of the first kind, then all of the second,
            shape (F · N, C, H, W), normalised.
        labels: Classes of each image, each of shape (L,).
        flips: F, the number of views of an image.

    Returns:
        Maps, the features of the target, and the logits, summed over the views of an image,
        shape (N, K).

    Raises:
        ValueError: If a label is out of range.
    """
    # The caller may be in inference mode, which records nothing to differentiate.
    with torch.inference_mode(False), torch.enable_grad():
        output, logits = tap.with_graph(images)
        check_labels(labels, logits.shape[1])
        size_hw = (images.shape[2], images.shape[3])
        features = layout.as_nchw(output.detach(), size_hw)
        by_rank = []  # maps of the first label of each image, of the second …
        for rank in range(max((len(own) for own in labels), default=0)):
            (grad,) = gradients([output], logits, labels, rank, flips)
            weight = layout.as_nchw(grad, size_hw).mean(dim=(2, 3))
            maps = torch.einsum("nchw,nc->nhw", features.to(weight.dtype), weight)
            by_rank.append(maps.unflatten(0, (flips, len(labels))))
    summed = logits.detach().unflatten(0, (flips, len(labels))).sum(dim=0)
    by_view = features.unflatten(0, (flips, len(labels)))
    return MappedViews(rows_of_labels(by_rank, labels, by_view), by_view.float(), summed.float())


def rows_of_labels(by_rank: Sequence[Tensor], labels: Sequence[Tensor], like: Tensor) -> Tensor:
    """Maps of all labels of the first image, then of the second …, float32, shape (F, R, h, w).

    Args:
        by_rank: Maps of the first label of each image, of the second …, each (F, N, h, w).
        labels: Classes of each of N images.
        like: Features of the same views and cells, shape (F, N, D, h, w).
    """
    rows = [by_rank[rank][:, i] for i, own in enumerate(labels) for rank in range(len(own))]
    if not rows:
        return like.new_zeros((len(like), 0, *like.shape[-2:])).float()
    return torch.stack(rows, dim=1).float()


def gradients(
    tensors: Sequence[Tensor], logits: Tensor, labels: Sequence[Tensor], rank: int, flips: int
) -> list[Tensor]:
    """Gradients by tensors of the logit of the label of a rank, 0 for images with fewer."""
    images = [i for i, own in enumerate(labels) if len(own) > rank]
    classes = torch.stack([labels[i][rank] for i in images]).long().repeat(flips)
    views = torch.tensor([view * len(labels) + i for view in range(flips) for i in images])
    chosen = logits[views.to(logits.device), classes.to(logits.device)]
    grads = torch.autograd.grad(chosen.sum() * SCALE, list(tensors), retain_graph=True)
    return [grad.to(torch.promote_types(grad.dtype, torch.float32)) / SCALE for grad in grads]


def check_labels(labels: Sequence[Tensor], classes: int) -> None:
    """Refuse labels that the classifier does not have.

    Raises:
        ValueError: If a label is out of range.
    """
    given = torch.cat(list(labels)) if labels else torch.zeros(0)
    if given.numel() and not 0 <= int(given.min()) <= int(given.max()) < classes:
        raise ValueError(
            f"labels: expected classes in [0, {classes}) as the classifier has {classes}, found "
            f"{int(given.min())} to {int(given.max())}"
        )


def _layouts(call: Call, images: Tensor) -> list[Layout]:
    """The layouts that the output of a norm or of a module with children may have."""
    output, module = call.output, call.module
    named_norm = "norm" in type(module).__name__.lower()
    if output is None or not output.requires_grad or not (named_norm or any(module.children())):
        return []
    return list(layouts(output, len(images), (images.shape[2], images.shape[3])))


def _reached(grad: Tensor) -> float:
    """Share of cells with a gradient, of gradients (N, C, h, w)."""
    return float((grad != 0).any(dim=1).float().mean())
