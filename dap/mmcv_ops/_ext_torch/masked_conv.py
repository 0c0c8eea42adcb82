"""The copies before and after the matrix product in ``mmcv.ops.MaskedConv2d``."""

import torch
from torch import Tensor
from torch.nn import functional

from .common import operator


@operator
def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Copy the window of each masked position into a column.

    Args:
        im: Features, shape (1, C, H, W).
        mask_h_idx: Rows of the M positions, int64, shape (M,).
        mask_w_idx: Columns of the M positions, int64, shape (M,).
        col: Output, shape (C * kernel_h * kernel_w, M).
        kernel_h: Height of a window.
        kernel_w: Width of a window.
        pad_h: Rows of zeros above the features.
        pad_w: Columns of zeros left of the features.
    """
    padded = functional.pad(im[0], (pad_w, kernel_w, pad_h, kernel_h))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows, columns].reshape(col.shape))


@operator
def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Write one column per masked position into the output map.

    Args:
        col: Shape (channels, M).
        mask_h_idx: Rows of the M positions, int64, shape (M,).
        mask_w_idx: Columns of the M positions, int64, shape (M,).
        im: Output, shape (1, channels, height, width); other positions keep their value.
        height: Height of ``im``.
        width: Width of ``im``.
        channels: Channels of ``im``.
    """
    im.view(channels, height, width)[:, mask_h_idx, mask_w_idx] = col
