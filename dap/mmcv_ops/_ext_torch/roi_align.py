"""RoIAlign: averages by torchvision, maxima by torch."""

import torch
from torch import Tensor

from .common import add_channel_rows, at_least_float32, channel_rows, operator
from .sampling import corners, samples, scaled_boxes

MAX, AVERAGE = 0, 1


def _needs_float32(tensor: Tensor) -> bool:
    """Whether torchvision's kernels do not support the dtype."""
    return tensor.dtype == torch.bfloat16


@operator
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool bilinear samples of each RoI's bins.

    Args:
        input: Features, shape (B, C, H, W).
        rois: Image index and box in pixels, shape (R, 5), xyxy.
        output: Shape (R, C, aligned_height, aligned_width).
        argmax_y: Output with ``pool_mode`` 0, y of the largest samples in cells, shaped
            as ``output``; -1 where a bin has no sample.
        argmax_x: The same for x.
        aligned_height: Bins along y.
        aligned_width: Bins along x.
        spatial_scale: Cells per pixel.
        sampling_ratio: Samples per bin and axis; 0 for one per cell, rounded up.
        pool_mode: 0 largest sample, 1 average.
        aligned: Shift by half a cell.
    """
    if pool_mode == MAX:
        start, size = scaled_boxes(at_least_float32(rois), spatial_scale, aligned)
        bins = (aligned_height, aligned_width)
        _max_forward(input, rois, output, argmax_y, argmax_x, start, size, bins, sampling_ratio)
        return
    if _needs_float32(input):
        input = input.float()
    output.copy_(
        torch.ops.torchvision.roi_align(
            input,
            rois.to(input.dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            sampling_ratio,
            aligned,
        )
    )


def _max_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    start: Tensor,
    size: Tensor,
    bins: tuple[int, int],
    sampling_ratio: int,
) -> None:
    """Write the largest sample of each bin, the first of equal ones, and its position."""
    height, width = input.shape[2:]
    rows = channel_rows(input)
    # In mmcv, a bin without samples keeps the initial value of the maximum.
    output.fill_(-10000 if input.device.type == "cpu" else torch.finfo(torch.float32).min)
    argmax_y.fill_(-1)
    argmax_x.fill_(-1)
    for chunk in samples(start, size, bins, sampling_ratio, None, input.shape[1]):
        if not chunk.y.shape[-1]:
            continue
        index, weight = corners(chunk.y, chunk.x, height, width)
        index += (rois[chunk.rois, 0].long() * height * width).view(-1, 1, 1, 1, 1)
        values = (rows[index] * weight[..., None]).sum(-2)  # (R, PH, PW, S, C)
        best, sample = values.max(dim=3)
        output[chunk.rois] = best.permute(0, 3, 1, 2).to(output.dtype)
        for target, positions in ((argmax_y, chunk.y), (argmax_x, chunk.x)):
            chosen = positions.gather(3, sample)
            target[chunk.rois] = chosen.permute(0, 3, 1, 2).to(target.dtype)


@operator
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of the features to ``grad_input`` (B, C, H, W); see the forward."""
    if pool_mode == MAX:
        _max_backward(grad_output, rois, argmax_y, argmax_x, grad_input)
        return
    if _needs_float32(grad_output):
        grad_output = grad_output.float()
    grad_input.add_(
        torch.ops.torchvision._roi_align_backward(
            grad_output,
            rois.to(grad_output.dtype),
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        ).to(grad_input.dtype)
    )


def _max_backward(
    grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor
) -> None:
    """Share each bin's gradient among the four neighbours of its largest sample."""
    height, width = grad_input.shape[2:]
    grad, y, x = map(at_least_float32, (grad_output, argmax_y, argmax_x))
    index, weight = corners(y, x, height, width)  # (R, C, PH, PW, 4)
    index += (rois[:, 0].long() * height * width).view(-1, 1, 1, 1, 1)
    channels = grad.shape[1]
    channel = torch.arange(channels, device=grad.device).view(1, -1, 1, 1, 1)
    shares = grad[..., None] * weight * (y != -1)[..., None]
    rows = grad.new_zeros(grad_input.shape[0] * height * width, channels)
    rows.view(-1).index_add_(0, (index * channels + channel).flatten(), shares.flatten())
    add_channel_rows(grad_input, rows)
