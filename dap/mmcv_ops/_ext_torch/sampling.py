"""Sample points of RoIs and their bilinear neighbours, as mmcv's RoI operators place them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .common import slices

CHUNK_VALUES = 2**22


@dataclass
class Samples:
    """Sample points of some RoIs with the same number of points per bin.

    Attributes:
        rois: Indices of the RoIs, shape (R,).
        y, x: Coordinates in cells, shape (R, PH, PW, S); S may be 0.
    """

    rois: Tensor
    y: Tensor
    x: Tensor


def scaled_boxes(rois: Tensor, spatial_scale: float, aligned: bool) -> tuple[Tensor, Tensor]:
    """Return corners (R, 2) and sizes (R, 2) of RoIs in cells, each as (y, x).

    Args:
        rois: Image index and box, shape (R, 5), xyxy.
        spatial_scale: Cells per pixel.
        aligned: Shift by half a cell; if not, sizes are at least 1.
    """
    boxes = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    start, end = boxes[:, [1, 0]], boxes[:, [3, 2]]
    size = end - start
    return start, size if aligned else size.clamp(min=1)


def _axis(start: Tensor, bins: Tensor, count: int, grid: int) -> Tensor:
    """Return coordinates (R, count, grid) along one axis from starts (R,) and bins' sizes (R,)."""
    position = torch.arange(count, device=start.device)[:, None] * bins[:, None, None]
    within = (torch.arange(grid, device=start.device) + 0.5) * bins[:, None, None] / grid
    return start[:, None, None] + position + within


def samples(
    start: Tensor,
    size: Tensor,
    output_size: tuple[int, int],
    sampling_ratio: int,
    shift: Tensor | None,
    channels: int,
) -> Iterator[Samples]:
    """Yield the sample points of all RoIs, those with equal grids together, in chunks.

    Args:
        start: Corners (y, x) in cells, shape (R, 2).
        size: Sizes (y, x) in cells, shape (R, 2).
        output_size: Bins (PH, PW).
        sampling_ratio: Points per bin and axis; 0 for one per cell, rounded up.
        shift: Added to each bin's points, (y, x), shape (R, 2, PH, PW).
        channels: Channels of the features, which limit the size of a chunk.
    """
    count_y, count_x = output_size
    bins = size / torch.tensor(output_size, device=size.device)
    grids = bins.ceil().clamp(min=0).long()
    if sampling_ratio > 0:
        grids = torch.full_like(grids, sampling_ratio)
    for grid_y, grid_x in torch.unique(grids, dim=0).tolist():
        members = (grids == grids.new_tensor([grid_y, grid_x])).all(1).nonzero()[:, 0]
        points = count_y * count_x * max(1, grid_y * grid_x)
        for part in slices(len(members), CHUNK_VALUES // (4 * points * max(1, channels))):
            rois = members[part]
            y = _axis(start[rois, 0], bins[rois, 0], count_y, grid_y)[:, :, None, :, None]
            x = _axis(start[rois, 1], bins[rois, 1], count_x, grid_x)[:, None, :, None, :]
            shape = (len(rois), count_y, count_x, grid_y, grid_x)
            y, x = y.expand(shape).flatten(3), x.expand(shape).flatten(3)
            if shift is not None:
                y, x = y + shift[rois, 0, :, :, None], x + shift[rois, 1, :, :, None]
            yield Samples(rois, y, x)


def corners(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the four neighbours of points in a map.

    Args:
        y: Coordinates in cells, any shape (...).
        x: Coordinates in cells, shape (...).
        height: Height of the map.
        width: Width of the map.

    Returns:
        Indices into the flattened map, int64, shape (..., 4): upper left, upper right,
        lower left, lower right; and their bilinear weights, shape (..., 4), all zero
        for points more than one cell outside.
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    down, right = y - top, x - left
    top, left = top.long(), left.long()
    bottom, far = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    index = [top * width + left, top * width + far, bottom * width + left, bottom * width + far]
    weight = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
    return torch.stack(index, -1), torch.stack(weight, -1) * inside[..., None]
