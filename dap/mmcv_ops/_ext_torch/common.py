"""Helpers of all operators: switch off autograd and autocast, convert dtypes, split tensors."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def operator(function: Callable[..., Result]) -> Callable[..., Result]:
    """Decorate a function to run like a compiled operator: without autograd and autocast.

    Args:
        function: A function whose first argument is a tensor on the device of the operator.

    Returns:
        The function under ``no_grad`` and with autocast switched off for that device.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Result:
        first = args[0] if args else next(iter(kwargs.values()))
        with torch.no_grad(), torch.autocast(first.device.type, enabled=False):
            return function(*args, **kwargs)

    return run


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert a float16 or bfloat16 tensor to float32; return any other as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def slices(length: int, step: int) -> Iterator[slice]:
    """Split ``range(length)`` into consecutive slices of at most ``step`` (at least one) items."""
    step = max(1, step)
    for start in range(0, length, step):
        yield slice(start, min(length, start + step))


def channel_rows(features: Tensor) -> Tensor:
    """Arrange features (B, C, H, W) as rows (B * H * W, C), at least float32."""
    features = at_least_float32(features)
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def add_channel_rows(target: Tensor, rows: Tensor) -> None:
    """Add rows (B * H * W, C) to ``target`` (B, C, H, W), in place."""
    batch, channels, height, width = target.shape
    target.add_(rows.view(batch, height, width, channels).permute(0, 3, 1, 2).to(target.dtype))
