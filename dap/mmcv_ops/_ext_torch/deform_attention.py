"""Multi-scale deformable attention by bilinear sampling, in chunks of queries.

A chunk has at most four sampled values per element of the output, the number of points
per query and level in Deformable DETR.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .common import at_least_float32, operator, slices

SAMPLES_PER_OUTPUT = 4
BILINEAR, ZEROS = 0, 0  # torch's numbers of grid_sample's mode and padding


def _levels(value: Tensor, shapes: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """Yield the number, keys and map (B * heads, channels, H, W) of each level."""
    batch, _, heads, channels = value.shape
    start = 0
    for level, (height, width) in enumerate(shapes.tolist()):
        keys = slice(start, start + height * width)
        start = keys.stop
        maps = value[:, keys].permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        yield level, keys, at_least_float32(maps)


def _by_head(tensor: Tensor) -> Tensor:
    """Turn (B, queries, heads, ...) into (B * heads, queries, ...), at least float32."""
    return at_least_float32(tensor.transpose(1, 2).flatten(0, 1))


@operator
def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Sum sampled values by attention weights.

    Args:
        value: Shape (B, keys, heads, channels); the keys of all levels in sequence.
        value_spatial_shapes: (H, W) of each level, shape (levels, 2).
        value_level_start_index: Not used; the levels follow each other.
        sampling_locations: (x, y) in [0, 1], shape (B, queries, heads, levels, points, 2).
        attention_weights: Shape (B, queries, heads, levels, points).
        im2col_step: Not used.

    Returns:
        Shape (B, queries, heads * channels), in the dtype of ``value``.
    """
    batch, _, heads, channels = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    grids, weights = 2 * _by_head(sampling_locations) - 1, _by_head(attention_weights)
    output = grids.new_zeros(batch * heads, channels, queries)
    for level, _, maps in _levels(value, value_spatial_shapes):
        for part in slices(queries, SAMPLES_PER_OUTPUT * queries // points):
            sampled = torch.grid_sampler_2d(maps, grids[:, part, level], BILINEAR, ZEROS, False)
            output[:, :, part] += sampled.mul_(weights[:, None, part, level]).sum(-1)
    return (
        output.view(batch, heads * channels, queries).transpose(1, 2).contiguous().to(value.dtype)
    )


@operator
def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of value, sampling locations and attention weights.

    Args:
        value: As in the forward.
        value_spatial_shapes: As in the forward.
        value_level_start_index: As in the forward.
        sampling_locations: As in the forward.
        attention_weights: As in the forward.
        grad_output: Shape (B, queries, heads * channels).
        grad_value: Output, shaped as ``value``.
        grad_sampling_loc: Output, shaped as ``sampling_locations``.
        grad_attn_weight: Output, shaped as ``attention_weights``.
        im2col_step: Not used.
    """
    batch, _, heads, channels = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    grids, weights = 2 * _by_head(sampling_locations) - 1, _by_head(attention_weights)
    grads = _by_head(grad_output.view(batch, queries, heads, channels)).transpose(1, 2)
    backward = torch.ops.aten.grid_sampler_2d_backward
    for level, keys, maps in _levels(value, value_spatial_shapes):
        grad_maps = torch.zeros_like(maps)
        for part in slices(queries, SAMPLES_PER_OUTPUT * queries // points):
            grid, weight = grids[:, part, level], weights[:, None, part, level]
            grad = grads[:, :, part, None]
            sampled = torch.grid_sampler_2d(maps, grid, BILINEAR, ZEROS, False)
            grad_weight = sampled.mul_(grad).sum(1).view(batch, heads, -1, points)
            grad_attn_weight[:, part, :, level] = grad_weight.transpose(1, 2).to(value.dtype)
            torch.mul(grad, weight, out=sampled)
            grad_map, grad_grid = backward(
                sampled, maps, grid, BILINEAR, ZEROS, False, (True, True)
            )
            grad_maps += grad_map
            grad_grid = 2 * grad_grid.view(batch, heads, -1, points, 2).transpose(1, 2)
            grad_sampling_loc[:, part, :, level] = grad_grid.to(value.dtype)
        grad_maps = grad_maps.view(batch, heads, channels, -1).permute(0, 3, 1, 2)
        grad_value[:, keys] = grad_maps.to(value.dtype)
