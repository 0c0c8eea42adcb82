"""CARAFE: upsampling with a different kernel at each position.

Output (y, x) is a sum over the k x k cells around feature cell (y // s, x // s), each
multiplied by its mask; s is the scale factor. The sum runs over the cells, with one
pass over the output for each, so that no unfolded copy of the features is needed.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from .common import at_least_float32, operator


def _split(maps: Tensor, groups: int, scale: int) -> Tensor:
    """View (N, C, H * s, W * s) as (N, groups, C / groups, H, s, W, s)."""
    batch, channels, height, width = maps.shape
    return maps.view(
        batch, groups, channels // groups, height // scale, scale, width // scale, scale
    )


def _cells(padded: Tensor, kernel: int, groups: int) -> Iterator[tuple[int, Tensor]]:
    """Yield each cell of the kernel with the features at it, a view (N, G, C / G, H, 1, W, 1)."""
    height, width = (size - kernel + 1 for size in padded.shape[2:])
    for cell in range(kernel * kernel):
        y, x = divmod(cell, kernel)
        shifted = padded[:, :, y : y + height, x : x + width].unflatten(1, (groups, -1))
        yield cell, shifted[:, :, :, :, None, :, None]


def _forward(
    features: Tensor, masks: Tensor, output: Tensor, kernel: int, groups: int, scale: int
) -> None:
    features, masks = map(at_least_float32, (features, masks))
    border = (kernel - 1) // 2
    padded = functional.pad(features, (border,) * 4)
    factors = _split(masks.contiguous(), groups, scale)
    total = torch.zeros(output.shape, dtype=features.dtype, device=features.device)
    view = _split(total, groups, scale)
    for cell, seen in _cells(padded, kernel, groups):
        view.addcmul_(seen, factors[:, :, cell, None])
    output.copy_(total)


def _backward(
    grad: Tensor,
    features: Tensor,
    masks: Tensor,
    grad_features: Tensor,
    grad_masks: Tensor,
    kernel: int,
    groups: int,
    scale: int,
) -> None:
    grad, features, masks = map(at_least_float32, (grad, features, masks))
    border = (kernel - 1) // 2
    padded = functional.pad(features, (border,) * 4)
    grad_padded = torch.zeros_like(padded)
    grad, factors = (_split(t.contiguous(), groups, scale) for t in (grad, masks))
    mask_shape = _split(grad_masks, groups, scale)
    targets = _cells(grad_padded, kernel, groups)
    for (cell, seen), (_, target) in zip(_cells(padded, kernel, groups), targets, strict=True):
        mask_shape[:, :, cell] = (grad * seen).sum(2).to(grad_masks.dtype)
        target += (grad * factors[:, :, cell, None]).sum((4, 6), keepdim=True)
    height, width = features.shape[2:]
    inner = grad_padded[:, :, border : border + height, border : border + width]
    grad_features.copy_(inner)


@operator
def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Upsample features.

    Args:
        features: Shape (N, C, H, W).
        masks: Shape (N, group_size * kernel_size ** 2, H * s, W * s).
        output: Shape (N, C, H * s, W * s).
        kernel_size: Odd.
        group_size: Number of channel groups, each with its own masks.
        scale_factor: s.
    """
    _forward(features, masks, output, kernel_size, group_size, scale_factor)


@operator
def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of features and masks; ``top_grad`` is shaped as the output."""
    _backward(
        top_grad, features, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor
    )


@operator
def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Upsample features; see ``carafe_naive_forward``.

    ``rfeatures``, shaped as ``features``, gets a copy for the backward pass. mmcv's other
    buffers, ``routput`` and ``rmasks``, are not used.
    """
    rfeatures.copy_(features)
    _forward(features, masks, output, kernel_size, group_size, scale_factor)


@operator
def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of features and masks; mmcv's buffers are not used."""
    _backward(
        top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor
    )
