"""Deformable convolutions, versions 1 and 2, by torchvision.

mmcv's ``im2col_step``, which only limits memory, is ignored.
"""

from typing import Any

import torch
from torch import Tensor

from .common import at_least_float32, operator

OUTSIDE = -1e4  # an offset to a position outside any map, representable in float16


def _prepare(offset: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Convert dtypes that torchvision's kernels do not support: bfloat16, and float16 on the CPU.

    In mmcv a sample whose offset is not finite is zero. torchvision would read outside the
    map if it is NaN.
    """
    converted = (offset.nan_to_num(nan=OUTSIDE, posinf=OUTSIDE, neginf=OUTSIDE), *tensors)
    if offset.dtype == torch.bfloat16 or offset.device.type == "cpu":
        converted = tuple(map(at_least_float32, converted))
    return tuple(t.contiguous() for t in converted)


def _geometry(sizes: dict[str, Any]) -> tuple[int, ...]:
    """Order the keyword arguments of version 1 as torchvision's operator takes them."""
    names = ("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")
    return tuple(sizes[name] for name in names)


def _empty_mask_and_bias(input: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mask and bias that torchvision expects if there are none."""
    return input.new_zeros(len(input), 1), input.new_zeros(len(weight))


@operator
def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **sizes: int,
) -> None:
    """Convolve at positions shifted by offsets.

    Args:
        input: Shape (N, C, H, W).
        weight: Shape (O, C / group, kH, kW).
        offset: Shape (N, deformable_group * kH * kW * 2, H', W'), pairs (y, x).
        output: Shape (N, O, H', W').
        columns: Not used.
        ones: Not used.
        **sizes: kW, kH, dW, dH (stride), padW, padH, dilationW, dilationH, group,
            deformable_group, im2col_step.
    """
    shift, x, w = _prepare(offset, input, weight)
    mask, bias = _empty_mask_and_bias(x, w)
    output.copy_(
        torch.ops.torchvision.deform_conv2d(x, w, shift, mask, bias, *_geometry(sizes), False)
    )


def _gradients(
    input: Tensor, offset: Tensor, grad_output: Tensor, weight: Tensor, sizes: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of input, weight and offset."""
    shift, grad, x, w = _prepare(offset, grad_output, input, weight)
    mask, bias = _empty_mask_and_bias(x, w)
    gradients = torch.ops.torchvision._deform_conv2d_backward(
        grad, x, w, shift, mask, bias, *_geometry(sizes), False
    )
    return gradients[:3]


@operator
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **sizes: int,
) -> None:
    """Write the gradients of input and offset; see ``deform_conv_forward``.

    torchvision computes the gradient of the weight in the same call. It is stored on the
    buffer ``columns``, which mmcv then passes to ``deform_conv_backward_parameters``.
    """
    grad_input, columns.grad_weight, grad_offset = _gradients(  # type: ignore[attr-defined]
        input, offset, gradOutput, weight, sizes
    )
    gradInput.copy_(grad_input)
    gradOffset.copy_(grad_offset)


@operator
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **sizes: int,
) -> None:
    """Add ``scale`` times the gradient of the weight to ``gradWeight``; see the forward."""
    grad_weight = columns.__dict__.pop("grad_weight", None)
    if grad_weight is None:  # the weight's gradient does not depend on its values
        _, grad_weight, _ = _gradients(input, offset, gradOutput, gradWeight, sizes)
    gradWeight.add_(grad_weight.to(gradWeight.dtype), alpha=scale)


def _at_output_size(name: str, field: Tensor, output: Tensor) -> Tensor:
    """Read offsets or masks of each image as mmcv's kernels of version 2 do.

    They read the values in memory as (channels, H', W') of the output, independently of
    the H and W of the field. DyHead trains and predicts with fields of twice the size of
    the output, so that its weights depend on this.

    Args:
        name: Name of the field, for the error.
        field: Shape (N, channels, H, W).
        output: Shape (N, O, H', W').

    Returns:
        Shape (N, channels, H', W').

    Raises:
        ValueError: If the field has fewer values than the output needs.
    """
    if field.shape[2:] == output.shape[2:]:
        return field
    shape = (len(field), field.shape[1], *output.shape[2:])
    needed = shape[1] * shape[2] * shape[3]
    if field[:1].numel() < needed:
        raise ValueError(
            f"{name} has height and width {tuple(field.shape[2:])}, expected those of the "
            f"output, {tuple(output.shape[2:])}"
        )
    return field.flatten(1)[:, :needed].reshape(shape)


@operator
def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Convolve at shifted positions, each value multiplied by its mask.

    Args:
        input: Shape (N, C, H, W).
        weight: Shape (O, C / group, kernel_h, kernel_w).
        bias: Shape (O,); any shape if not ``with_bias``.
        ones: Not used.
        offset: Shape (N, deformable_group * kernel_h * kernel_w * 2, H', W'), pairs (y, x).
        mask: Shape (N, deformable_group * kernel_h * kernel_w, H', W').
        output: Shape (N, O, H', W'). Offsets and masks of another H' and W' are read
            as by mmcv, see ``_at_output_size``.
        columns: Not used.
        kernel_h: Height of the kernel.
        kernel_w: Width of the kernel.
        stride_h: Stride along y.
        stride_w: Stride along x.
        pad_h: Rows of zeros at both ends.
        pad_w: Columns of zeros at both ends.
        dilation_h: Dilation along y.
        dilation_w: Dilation along x.
        group: Number of groups of channels.
        deformable_group: Number of channel groups, each with its own offsets and masks.
        with_bias: Whether ``bias`` is added.

    Raises:
        ValueError: If offsets or masks are smaller than the output.
    """
    offset = _at_output_size("offset", offset, output)
    mask = _at_output_size("mask", mask, output)
    shift, x, w, b, factor = _prepare(offset, input, weight, bias, mask)
    if not with_bias:
        b = x.new_zeros(len(w))
    geometry = stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group
    output.copy_(torch.ops.torchvision.deform_conv2d(x, w, shift, factor, b, *geometry, True))


@operator
def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the gradients of input, weight, bias, offset and mask; see the forward."""
    shift, grad, x, w, b, factor = _prepare(
        _at_output_size("offset", offset, grad_output),
        grad_output,
        input,
        weight,
        bias,
        _at_output_size("mask", mask, grad_output),
    )
    if not with_bias:
        b = x.new_zeros(len(w))
    geometry = stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group
    gradients = torch.ops.torchvision._deform_conv2d_backward(
        grad, x, w, shift, factor, b, *geometry, True
    )
    grad_input.copy_(gradients[0])
    grad_weight.copy_(gradients[1])
    for target, gradient in ((grad_offset, gradients[2]), (grad_mask, gradients[3])):
        target.view(len(target), -1)[:, : gradient[0].numel()] = gradient.flatten(1)
    if with_bias:
        grad_bias.copy_(gradients[4])
