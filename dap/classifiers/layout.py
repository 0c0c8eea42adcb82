"""The layouts in which a tensor can hold the cells of a feature map."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

MAX_EXTRA_TOKENS = 8  # class, distillation and register tokens before the patches


class Layout(NamedTuple):
    """How a tensor holds one feature vector per cell of an image.

    Attributes:
        kind: ``'NCHW'``, ``'NHWC'``, or ``'NLC'`` for a list of tokens, row by row.
        extra_tokens: Number of leading tokens that belong to no cell.
    """

    kind: str
    extra_tokens: int = 0

    def as_nchw(self, tensor: Tensor, image_size_hw: tuple[int, int]) -> Tensor:
        """Convert a tensor of this layout to shape (N, C, h, w).

        Args:
            tensor: A tensor of this layout.
            image_size_hw: Height and width of the images it was computed from.

        Raises:
            ValueError: If the tokens form no grid with square cells.
        """
        if self.kind == "NCHW":
            return tensor
        if self.kind == "NHWC":
            return tensor.permute(0, 3, 1, 2)
        tokens = tensor[:, self.extra_tokens :]
        grid = token_grid(tokens.shape[1], image_size_hw)
        if grid is None:
            raise ValueError(
                f"{tokens.shape[1]} tokens form no grid over an image of {image_size_hw[0]} x "
                f"{image_size_hw[1]} px (height x width)"
            )
        return tokens.transpose(1, 2).unflatten(2, grid)


def token_grid(count: int, image_size_hw: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of ``count`` square cells over an image; None if there are none."""
    height, width = image_size_hw
    scale = math.sqrt(count / (height * width))
    rows, columns = round(height * scale), round(width * scale)
    squares = rows * columns == count and height * columns == width * rows
    return (rows, columns) if squares and count else None


def layouts(
    tensor: Tensor, batch: int, image_size_hw: tuple[int, int], whole_pixels: bool = True
) -> Iterator[Layout]:
    """List the layouts that are possible for the shape of a tensor.

    Args:
        tensor: Output of a module.
        batch: Number of images it was computed from.
        image_size_hw: Height and width of the images.
        whole_pixels: Whether a cell must be a square with an integer number of pixels, at least 2.
            Otherwise there must be at least 2 cells, and fewer cells than pixels, along both axes.
    """
    shape = tuple(tensor.shape)
    if not shape or shape[0] != batch or not tensor.is_floating_point():
        return
    if len(shape) == 4:
        for kind, grid in (("NCHW", shape[2:]), ("NHWC", shape[1:3])):
            if _is_grid((grid[0], grid[1]), image_size_hw, whole_pixels):
                yield Layout(kind)
    elif len(shape) == 3:
        for extra in range(MAX_EXTRA_TOKENS + 1):
            tokens = token_grid(max(0, shape[1] - extra), image_size_hw)
            if tokens is not None and _is_grid(tokens, image_size_hw, True):
                yield Layout("NLC", extra)


def _is_grid(grid: tuple[int, int], image_size_hw: tuple[int, int], whole_pixels: bool) -> bool:
    if min(grid) < 2 or any(n >= side for n, side in zip(grid, image_size_hw, strict=True)):
        return False
    if not whole_pixels:
        return True
    stride = image_size_hw[0] // grid[0]
    return all(n * stride == side for n, side in zip(grid, image_size_hw, strict=True))
