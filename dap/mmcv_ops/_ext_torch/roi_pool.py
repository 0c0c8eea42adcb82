"""RoIPool as mmcv defines it.

torchvision's operator rounds RoIs to whole cells first and mmcv's does not, so that their
bins differ.
"""

import torch
from torch import Tensor

from .common import at_least_float32, channel_rows, operator

ROIS_AT_A_TIME = 64


def _edges(start: Tensor, size: Tensor, count: int, limit: int) -> tuple[Tensor, Tensor]:
    """Return first and last-plus-one cell of bins along one axis, int64, shape (R, count)."""
    bins = size / count
    steps = torch.arange(count + 1, device=start.device)
    edges = steps * bins[:, None] + start[:, None]
    first, last = edges[:, :-1].floor(), edges[:, 1:].ceil()
    return first.clamp(0, limit).long(), last.clamp(0, limit).long()


def _largest(
    rows: Tensor, base: Tensor, y: tuple[Tensor, Tensor], x: tuple[Tensor, Tensor], width: int
) -> tuple[Tensor, Tensor]:
    """Return the largest value of each bin and its cell, shape (R, PH, PW, C); first of equal ones.

    Args:
        rows: Features, shape (B * H * W, C).
        base: Row of each RoI's image, shape (R, 1, 1).
        y: First and last-plus-one rows, each of shape (R, PH).
        x: First and last-plus-one columns, each of shape (R, PW).
        width: Width of the map.
    """
    first_y, last_y = (t[:, :, None] for t in y)
    first_x, last_x = (t[:, None, :] for t in x)
    shape = (*torch.broadcast_shapes(first_y.shape, first_x.shape), rows.shape[1])
    best = rows.new_full(shape, torch.finfo(torch.float32).min)
    cell = torch.full(shape, -1, dtype=torch.int64, device=rows.device)
    for down in range(int((last_y - first_y).max())):
        for over in range(int((last_x - first_x).max())):
            row, column = first_y + down, first_x + over
            valid = (row < last_y) & (column < last_x)
            index = (row * width + column) * valid
            values = rows[base + index]
            better = (values > best) & valid[..., None]
            best = torch.where(better, values, best)
            cell = torch.where(better, index[..., None], cell)
    empty = ((last_y <= first_y) | (last_x <= first_x))[..., None]
    return torch.where(empty, 0, best), cell


@operator
def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Take the largest value of each bin.

    Args:
        input: Features, shape (B, C, H, W).
        rois: Image index and box in pixels, shape (R, 5), xyxy; x2 and y2 are inclusive.
        output: Shape (R, C, pooled_height, pooled_width); zero for empty bins.
        argmax: Output, cell of the largest value, int32, shaped as ``output``; -1 for
            empty bins.
        pooled_height: Bins along y.
        pooled_width: Bins along x.
        spatial_scale: Cells per pixel.
    """
    _, _, height, width = input.shape
    rows, boxes = channel_rows(input), at_least_float32(rois)
    x1, y1 = boxes[:, 1] * spatial_scale, boxes[:, 2] * spatial_scale
    x2, y2 = (boxes[:, 3] + 1) * spatial_scale, (boxes[:, 4] + 1) * spatial_scale
    sizes = y2 - y1, x2 - x1
    y = _edges(y1, sizes[0], pooled_height, height)
    x = _edges(x1, sizes[1], pooled_width, width)
    malformed = (sizes[0] <= 0) | (sizes[1] <= 0)
    base = (boxes[:, 0].long() * height * width)[:, None, None]
    # RoIs are grouped by size, because the loop over cells runs up to the largest bin.
    for part in (sizes[0] * sizes[1]).argsort().split(ROIS_AT_A_TIME):
        if not len(part):
            continue
        rows_of_bins, columns_of_bins = ((first[part], last[part]) for first, last in (y, x))
        best, cell = _largest(rows, base[part], rows_of_bins, columns_of_bins, width)
        output[part] = best.permute(0, 3, 1, 2).to(output.dtype)
        argmax[part] = cell.permute(0, 3, 1, 2).to(argmax.dtype)
    output[malformed] = 0
    argmax[malformed] = -1


@operator
def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add each bin's gradient to the cell of its largest value in ``grad_input`` (B, C, H, W)."""
    batch, channels, height, width = grad_input.shape
    grad = at_least_float32(grad_output)
    maps = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    index = maps[:, :, None, None] * height * width + argmax.clamp(min=0)
    total = grad.new_zeros(batch * channels * height * width)
    total.index_add_(0, index.flatten(), (grad * (argmax >= 0)).flatten())
    grad_input.add_(total.view(grad_input.shape).to(grad_input.dtype))
