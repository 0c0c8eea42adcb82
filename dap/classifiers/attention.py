"""AG-CAM: maps of transformers with a class token, from the gradients of its attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dap.cam import MappedViews

from .gradient import Target, maps_of_labels, random_gradients
from .network import Tap

_SOFTMAX: tuple[Any, ...] = (torch.softmax, F.softmax, Tensor.softmax)


class Attention(NamedTuple):
    """Attention of the class token in one block.

    Attributes:
        scores: Scaled products of its query with the keys, before the softmax, detached, shape
            (N, heads, 1, L).
        weights: Their softmax, part of the graph of the logits, shape (N, heads, 1, L).
    """

    scores: Tensor
    weights: Tensor


class RecordedAttention(TorchFunctionMode):
    """Context manager that records the attention of the first token in all blocks of this thread.

    It intercepts the calls of ``scaled_dot_product_attention`` and of ``softmax``. Fused attention
    is still used; only the row of the first token is computed again, to get attention weights that
    gradients can be computed for. The output changes only by rounding. Gradients are recorded from
    the first attention on.

    Args:
        batch: Number of images N. Attention within parts of images, such as windows, has another
            batch size and is not recorded.
    """

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.blocks: list[Attention] = []
        self._batch = batch

    def __enter__(self) -> RecordedAttention:
        self._grad_was_enabled = torch.is_grad_enabled()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.set_grad_enabled(self._grad_was_enabled)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function, and record its result if it is attention."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in _SOFTMAX and _over_last(*args, **kwargs) and self._is_attention(result):
            scores, weights = args[0][..., :1, :], self._in_graph(result[..., :1, :])
            first = weights
        elif func is F.scaled_dot_product_attention and self._is_attention(result):
            first_row = _first_row(*args, **kwargs)
            if first_row is None:
                return result
            scores, value = first_row
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
    """Scores of the first query, shape (N, heads, 1, L), and the values.

    Takes arguments of ``scaled_dot_product_attention``; returns None for options no ViT uses.
    """
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
        target: The target of Grad-CAM. Only blocks with the same number of tokens are counted.
        images: Normalised, shape (N, C, H, W).

    Returns:
        The number; 0 if AG-CAM is not possible, because there is no class token or its attention
        is computed without the functions that :class:`RecordedAttention` intercepts.
    """
    if target.layout.kind != "NLC" or not target.layout.extra_tokens:
        return 0
    with torch.inference_mode(False), torch.enable_grad():
        tap = Tap(network, target.module)
        try:
            blocks, _, logits = record_attention(tap, images)
        finally:
            tap.release()
        if not blocks or not logits.requires_grad:
            return 0
        grads = random_gradients(logits, [block.weights for block in blocks])
    return sum(grad is not None and bool(grad.any()) for grad in grads)


def record_attention(tap: Tap, images: Tensor) -> tuple[list[Attention], Tensor, Tensor]:
    """Run a network and record its attention.

    Args:
        tap: Tap on the module whose features are returned.
        images: Normalised, shape (N, C, H, W).

    Returns:
        The attention of all blocks with as many tokens as the features; the features, shape
        (N, L, D); and the logits, shape (N, K).
    """
    with torch.no_grad(), RecordedAttention(len(images)) as record:
        features, logits = tap.with_logits(images.clone())
    tokens = features.shape[1]
    blocks = [block for block in record.blocks if block.weights.shape[-1] == tokens]
    return blocks, features, logits


def attention_maps(
    tap: Tap, target: Target, images: Tensor, labels: Sequence[Tensor], flips: int
) -> MappedViews:
    r"""Compute label-specific maps of a batch of views by AG-CAM (Leem and Seo, AAAI 2024).

    Let :math:`s_i` be the scaled product of the class token's query with the key of patch i in one
    head of one block. Let :math:`g_i` be the gradient of the logit of a label with respect to the
    attention weight, which is the softmax of the scores. The map is the sum of
    :math:`\mathrm{sigmoid}(s_i) \cdot \max(g_i, 0)` over all heads of all blocks.

    Arguments, results and errors are those of :func:`~dap.classifiers.gradient_maps`. The target
    is the first norm of the last block, whose layout gives the positions of the patches.
    """
    size_hw = (images.shape[2], images.shape[3])
    with torch.inference_mode(False), torch.enable_grad():
        blocks, output, logits = record_attention(tap, images)
        sigmoids = [torch.sigmoid(block.scores.float()) for block in blocks]

        def compute_maps(grads: list[Tensor]) -> Tensor:
            products = [s * grad.clamp(min=0) for s, grad in zip(sigmoids, grads, strict=True)]
            tokens = torch.stack(products).sum(dim=(0, 2, 3))
            return target.layout.as_nchw(tokens[..., None], size_hw)[:, 0]

        features = target.layout.as_nchw(output.detach(), size_hw)
        by_view = features.unflatten(0, (flips, len(labels)))
        weights = [block.weights for block in blocks]
        return maps_of_labels(weights, logits, labels, by_view, compute_maps)
