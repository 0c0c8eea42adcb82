"""Maps of transformers with a class token, by the gradients of its attention in all blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dap.cam import MappedViews

from .gradient import Target, check_labels, gradients, rows_of_labels
from .network import Tap

_SOFTMAX: tuple[Any, ...] = (torch.softmax, F.softmax, Tensor.softmax)


class Attention(NamedTuple):
    """What the class token reads in one block.

    Attributes:
        scores: Products of its query with the keys, scaled, before the softmax, without gradient,
            shape (N, heads, 1, L).
        weights: Their softmax, part of the graph of the logits, shape (N, heads, 1, L).
    """

    scores: Tensor
    weights: Tensor


class RecordedAttention(TorchFunctionMode):
    """Inside ``with``, records the attention of the first token in every block of this thread.

    Both kinds of blocks are seen: those that call ``scaled_dot_product_attention``, and those that
    call ``softmax``. A fused attention stays fused; only the row of the first token is computed
    again, so that there is something to differentiate by. The output does not change, but for
    rounding. Gradients are recorded from the first attention on.

    Args:
        batch: Number of images N. Attention within parts of images, such as windows, is left alone.
    """

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.blocks: list[Attention] = []
        self._batch = batch

    def __enter__(self) -> RecordedAttention:
        self._recording = torch.is_grad_enabled()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.set_grad_enabled(self._recording)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute what is called, and record it if it is attention."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _SOFTMAX and _over_last(*args, **kwargs) and self._is_attention(result):
            scores, weights = args[0][..., :1, :], self._in_graph(result[..., :1, :])
            first = weights
        elif func is F.scaled_dot_product_attention and self._is_attention(result):
            found = _first_row(*args, **kwargs)
            if found is None:
                return result
            scores, value = found
            weights = self._in_graph(scores.softmax(dim=-1))
            first = weights.to(value.dtype) @ value
        else:
            return result
        self.blocks.append(Attention(scores.detach(), weights))
        return torch.cat([first, result[..., 1:, :]], dim=-2)

    def _is_attention(self, result: Tensor) -> bool:
        return result.ndim == 4 and len(result) == self._batch

    def _in_graph(self, weights: Tensor) -> Tensor:
        if self.blocks:
            return weights
        torch.set_grad_enabled(True)
        return weights.detach().requires_grad_()


def _over_last(scores: Tensor, dim: int | None = None, *_: Any, **__: Any) -> bool:
    """Whether a softmax with these arguments is over the last axis."""
    return dim in (-1, scores.ndim - 1)


def _first_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor] | None:
    """Scores of the first query, shape (N, heads, 1, L), and the values; None if unlike a ViT."""
    if is_causal or dropout_p or enable_gqa:
        return None
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = query[..., :1, :] @ key.transpose(-2, -1) * factor
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask[..., :1, :], -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask[..., :1, :]
    return scores, value


def count_blocks(network: nn.Module, target: Target, images: Tensor) -> int:
    """Number of blocks whose attention from the class token to the patches reaches the logits.

    Args:
        network: From images to logits, in evaluation mode.
        target: What Grad-CAM would use. Blocks with as many tokens count, if the first ones of
            them belong to no patch.
        images: Normalised, shape (N, C, H, W).

    Returns:
        0 if maps by attention cannot be had: there is no class token, or its attention is computed
        in a way that is not seen.
    """
    if target.layout.kind != "NLC" or not target.layout.extra_tokens:
        return 0
    with torch.inference_mode(False), torch.enable_grad():
        tap = Tap(network, target.module)
        try:
            blocks, _, logits = recorded(tap, images)
        finally:
            tap.release()
        if not blocks or not logits.requires_grad:
            return 0
        # Random weights, as the sum over all classes could have no gradient.
        weights = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0))
        total = (logits * weights.to(logits)).sum()
        grads = torch.autograd.grad(total, [b.weights for b in blocks], allow_unused=True)
    return sum(grad is not None and bool(grad.any()) for grad in grads)


def recorded(tap: Tap, images: Tensor) -> tuple[list[Attention], Tensor, Tensor]:
    """Run a network with its attention recorded.

    Returns:
        The attention of all blocks with as many tokens as the tapped features have; these
        features; and the logits.
    """
    with torch.no_grad(), RecordedAttention(len(images)) as record:
        features, logits = tap.with_logits(images.clone())
    tokens = features.shape[1]
    return [b for b in record.blocks if b.weights.shape[-1] == tokens], features, logits


def attention_maps(
    tap: Tap, target: Target, images: Tensor, labels: Sequence[Tensor], flips: int
) -> MappedViews:
    r"""Compute label-specific maps of a batch of views by AG-CAM (Leem and Seo, AAAI 2024).

    Let :math:`s_i` be the scaled product of the class token's query with the key of patch i in one
    head of one block, and :math:`g_i` the gradient of the logit of a label by the attention weight
    that the softmax makes of it. The map is the sum of
    :math:`\mathrm{sigmoid}(s_i) \cdot \max(g_i, 0)` over all heads of all blocks.

    Args:
        tap: On the target.
        target: The first norm of the last block: its layout says where the patches lie.
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
    size_hw = (images.shape[2], images.shape[3])
    with torch.inference_mode(False), torch.enable_grad():
        blocks, output, logits = recorded(tap, images)
        check_labels(labels, logits.shape[1])
        read = [torch.sigmoid(block.scores.float()) for block in blocks]
        by_rank = []  # maps of the first label of each image, of the second …
        for rank in range(max((len(own) for own in labels), default=0)):
            grads = gradients([block.weights for block in blocks], logits, labels, rank, flips)
            products = [r * grad.clamp(min=0) for r, grad in zip(read, grads, strict=True)]
            tokens = torch.stack(products).sum(dim=(0, 2, 3))
            maps = target.layout.as_nchw(tokens[..., None], size_hw)[:, 0]
            by_rank.append(maps.unflatten(0, (flips, len(labels))))
    features = target.layout.as_nchw(output.detach(), size_hw).unflatten(0, (flips, len(labels)))
    summed = logits.detach().unflatten(0, (flips, len(labels))).sum(dim=0)
    return MappedViews(rows_of_labels(by_rank, labels, features), features.float(), summed.float())
