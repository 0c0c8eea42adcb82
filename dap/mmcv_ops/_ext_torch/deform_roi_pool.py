"""Deformable RoI pooling: averages over bins that are shifted by offsets."""

import torch
from torch import Tensor

from .common import add_channel_rows, at_least_float32, channel_rows, operator
from .sampling import Samples, corners, samples, scaled_boxes


def _shift(offset: Tensor, size: Tensor, gamma: float) -> Tensor | None:
    """Return the bins' shifts (y, x) in cells, shape (R, 2, PH, PW). Offsets hold x first."""
    if not offset.numel():
        return None
    return gamma * size[:, :, None, None] * at_least_float32(offset).flip(1)


def _values(
    rows: Tensor, rois: Tensor, chunk: Samples, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return features (..., 4, C), rows (..., 4) and weights (..., 4) of samples' neighbours."""
    index, weight = corners(chunk.y, chunk.x, *shape)
    index += (rois[chunk.rois, 0].long() * shape[0] * shape[1]).view(-1, 1, 1, 1, 1)
    return rows[index], index, weight


@operator
def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Average bilinear samples of each RoI's shifted bins.

    Args:
        input: Features, shape (B, C, H, W).
        rois: Image index and box in pixels, shape (R, 5), xyxy.
        offset: Shifts (x, y) of bins in units of ``gamma`` times the RoI's size, shape
            (R, 2, pooled_height, pooled_width), or empty.
        output: Shape (R, C, pooled_height, pooled_width).
        pooled_height: Bins along y.
        pooled_width: Bins along x.
        spatial_scale: Cells per pixel.
        sampling_ratio: Samples per bin and axis; 0 for one per cell, rounded up.
        gamma: Unit of the offsets.
    """
    start, size = scaled_boxes(at_least_float32(rois), spatial_scale, aligned=True)
    rows, bins = channel_rows(input), (pooled_height, pooled_width)
    output.zero_()
    for chunk in samples(
        start, size, bins, sampling_ratio, _shift(offset, size, gamma), input.shape[1]
    ):
        if chunk.y.shape[-1]:
            values, _, weight = _values(rows, rois, chunk, input.shape[2:])
            mean = (values * weight[..., None]).sum(-2).mean(-2)
            output[chunk.rois] = mean.permute(0, 3, 1, 2).to(output.dtype)


def _offset_gradient(values: Tensor, y: Tensor, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the derivatives (x, y) of samples with respect to their position.

    As in mmcv, the distance to a border cell is that of the point itself, also outside
    the map.

    Args:
        values: Features at the four neighbours, shape (..., 4, C).
        y: Positions, shape (...).
        x: Positions, shape (...).
        shape: (H, W) of the map.

    Returns:
        Shape (..., 2, C).
    """
    top = y.clamp(0, shape[0] - 1).floor()
    left = x.clamp(0, shape[1] - 1).floor()
    bottom, right = (top + 1).clamp(max=shape[0] - 1), (left + 1).clamp(max=shape[1] - 1)
    down, up = (y - top)[..., None], (bottom - y)[..., None]
    over, back = (x - left)[..., None], (right - x)[..., None]
    v00, v01, v10, v11 = values.unbind(-2)  # row, then column: low or high
    by_x = v11 * down + v01 * up - v10 * down - v00 * up
    by_y = v11 * over + v10 * back - v01 * over - v00 * back
    return torch.stack([by_x, by_y], dim=-2)


@operator
def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Add the gradients to ``grad_input`` and ``grad_offset``; see the forward."""
    start, size = scaled_boxes(at_least_float32(rois), spatial_scale, aligned=True)
    rows, bins, shape = channel_rows(input), (pooled_height, pooled_width), input.shape[2:]
    grad_rows = torch.zeros_like(rows)
    grad_output = at_least_float32(grad_output)
    for chunk in samples(
        start, size, bins, sampling_ratio, _shift(offset, size, gamma), input.shape[1]
    ):
        if not (count := chunk.y.shape[-1]):
            continue
        values, index, weight = _values(rows, rois, chunk, shape)
        grad = (
            grad_output[chunk.rois].permute(0, 2, 3, 1)[:, :, :, None] / count
        )  # (R, PH, PW, 1, C)
        shares = grad[:, :, :, :, None] * weight[..., None]
        grad_rows.index_add_(0, index.flatten(), shares.flatten(0, -2))
        if offset.numel():
            inside = weight.sum(-1, keepdim=True) > 0
            slopes = _offset_gradient(values, chunk.y, chunk.x, shape) * grad[..., None, :]
            by_bin = (slopes.sum(-1) * inside).sum(3).permute(0, 3, 1, 2)  # (R, 2, PH, PW)
            unit = gamma * size[chunk.rois].flip(1)[:, :, None, None]
            grad_offset[chunk.rois] += (by_bin * unit).to(grad_offset.dtype)
    add_channel_rows(grad_input, grad_rows)
