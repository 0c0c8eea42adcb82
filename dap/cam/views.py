"""One map from several views of an image: several scales, each with its mirror image."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .rules import RULES, Rule

PAD_MULTIPLE = 32
MAX_ASPECT = 10

Side = int | tuple[int, int]
"""Length of the shorter side in pixels; or height and width, independent of the image."""


class View(NamedTuple):
    """A resized, and possibly mirrored, version of an image for the classifier.

    Attributes:
        short_side: Length that the shorter side is resized to, in pixels, with the aspect ratio
            kept; or height and width that every image is resized to, for a classifier with a
            fixed input size.
        flip: Whether the image is mirrored left to right.
    """

    short_side: Side
    flip: bool = False


DEFAULT_VIEWS = (View(288), View(288, True), View(576), View(576, True))
"""The views of the paper (section 4.1): short sides 288 and 576, each with its mirror image."""


def make_views(short_sides: Sequence[int] = (288, 576), flip: bool = True) -> tuple[View, ...]:
    """List the views with the given short sides, each with its mirror image if ``flip``.

    Raises:
        ValueError: If there is no short side, or one is not a positive integer.
    """
    sides = list(short_sides)
    if not sides or not all(isinstance(side, Integral) and side > 0 for side in sides):
        raise ValueError(f"short_sides: expected positive pixel counts, found {short_sides!r}")
    sides = [int(side) for side in sides]
    flips = (False, True) if flip else (False,)
    return tuple(View(side, flipped) for side in sides for flipped in flips)


def resized_size(image_size_hw: tuple[int, int], short_side: Side) -> tuple[int, int]:
    """Height and width of an image after its shorter side is resized to ``short_side`` pixels.

    The aspect ratio is kept. If the longer side would exceed ``MAX_ASPECT`` times ``short_side``,
    it is resized to that length instead, to bound the memory of very elongated images. If
    ``short_side`` is a height and a width, they are returned.
    """
    if not isinstance(short_side, int):
        return short_side
    scale = min(short_side / min(image_size_hw), MAX_ASPECT * short_side / max(image_size_hw))
    height, width = (max(1, round(side * scale)) for side in image_size_hw)
    return height, width


class MergedCam(NamedTuple):
    """The merged maps of an image, from which boxes are computed.

    Attributes:
        maps: One map per label, shape (L, H, W).
        cell_size: Pixels of the original image per cell, (y, x).
    """

    maps: Tensor
    cell_size: tuple[float, float]

    def over_image(self, image_size_hw: tuple[int, int], index: int = 0) -> np.ndarray:
        """Resize the map of one label to its image, see :func:`map_over_image`."""
        return map_over_image(self.maps[index].cpu().numpy(), self.cell_size, image_size_hw)


class ScaleMaps(NamedTuple):
    """Maps of one image at one scale.

    Attributes:
        maps: One map per view and label, those of mirrored views mirrored back, float32, shape
            (F, L, h, w).
        stride: Pixels of the resized image per cell, (y, x).
        size_hw: Height and width of the resized image without padding.
    """

    maps: Tensor
    stride: tuple[float, float]
    size_hw: tuple[int, int]


def flips_by_side(views: Sequence[View]) -> list[tuple[Side, list[bool]]]:
    """Group views by their short side, largest first, with the ``flip`` of each view.

    Raises:
        ValueError: If there is no view.
    """
    if not views:
        raise ValueError("views: expected at least one view, found none")
    # A fixed size (a tuple) is always the only side, so sorting never compares tuples with numbers.
    sides: list[Any] = sorted({view.short_side for view in views}, reverse=True)
    return [(side, [v.flip for v in views if v.short_side == side]) for side in sides]


def padded_size(
    image_size_hw: tuple[int, int], short_side: Side, multiple: int = PAD_MULTIPLE
) -> tuple[int, int]:
    """Height and width of :func:`resized_size`, padded to a multiple of ``multiple`` pixels."""
    height, width = resized_size(image_size_hw, short_side)
    return height + -height % multiple, width + -width % multiple


def merge_scales(scales: Sequence[ScaleMaps], image_size_hw: tuple[int, int], rule: Rule = "paper"
                 ) -> MergedCam:  # fmt: skip
    """Merge the maps of one image at all scales.

    ``rule='paper'`` and ``'extent'``: cells that show only padding are removed; the maps of all
    views are resampled to the grid of the largest view, bilinear between cell centres at their
    positions in the image, and averaged. The result is not normalised:
    :func:`~dap.cam.boxes_from_cam` does this (eq. 1). ``rule='release'``: as in the official
    release, the maps of a scale and its mirror image are averaged and normalised to [0, 1],
    padded cells included; the scales are resampled to the largest grid by nearest neighbours and
    averaged, and one cell is ``stride · min(H, W) / short_side`` pixels high and wide.

    All rules assume that the centre of a cell is the centre of its receptive field. The padding of
    strided convolutions can shift the receptive field by up to half a cell. With TensorFlow's SAME
    padding (EfficientNet-lite), the map of an untrained network is shifted half a cell up and to
    the left; with the symmetric padding of ResNet, half a cell down and to the right. Training can
    remove most of this shift. Averaging with the mirror image cancels the horizontal shift only.
    ``tools/benchmarks/half_cell.py`` measures the shift of a trained classifier, and the effect of
    correcting it.

    Args:
        scales: At least one, the largest first.
        image_size_hw: Height and width of the image in pixels.
        rule: ``'paper'``, ``'release'`` or ``'extent'``.

    Returns:
        One map per label, float32, and the size of a cell in pixels of the image.

    Raises:
        ValueError: If ``rule`` is unknown.
    """
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {RULES}, found {rule!r}")
    if rule == "release":
        return _merge_release(scales, min(image_size_hw) / min(scales[0].size_hw))
    return _merge_paper(scales, image_size_hw)


def map_over_image(
    cam: np.ndarray, cell_size: tuple[float, float], image_size_hw: tuple[int, int]
) -> np.ndarray:
    """Resize a map to its image, bilinear, and normalise it to [0, 1].

    Args:
        cam: Map of one label, shape (h, w).
        cell_size: Pixels of the image per cell, (y, x).
        image_size_hw: Height and width of the image. Cells beyond it are cut off. Pixels beyond
            the map, which rounding can cause, take the nearest value.

    Returns:
        float32, shape (H, W); zeros for a constant map.

    Raises:
        ValueError: If the map is not finite.
    """
    if not np.isfinite(cam).all():
        raise ValueError(f"cam: expected a finite map, found NaN or infinity in {cam.shape}")
    height, width = image_size_hw
    size = tuple(max(1, round(n * side)) for n, side in zip(cam.shape, cell_size, strict=True))
    large = cv2.resize(cam.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    missing = max(0, height - size[0]), max(0, width - size[1])
    large = cv2.copyMakeBorder(large, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
    large = large[:height, :width]
    low, high = float(large.min()), float(large.max())
    return (large - low) / (high - low) if high > low else np.zeros_like(large)


def _merge_paper(scales: Sequence[ScaleMaps], image_size_hw: tuple[int, int]) -> MergedCam:
    finest = _without_padding(scales[0])
    cell_size = tuple(
        stride * side / resized
        for stride, side, resized in zip(finest.stride, image_size_hw, finest.size_hw, strict=True)
    )
    grid_hw = finest.maps.shape[-2:]
    total = torch.zeros(finest.maps.shape[1:], device=finest.maps.device)
    for scale in map(_without_padding, scales):
        total += _resample(scale, finest.stride, finest.size_hw, grid_hw)
    count = sum(len(scale.maps) for scale in scales)
    return MergedCam(total / count, (cell_size[0], cell_size[1]))


def cells_of(size_hw: tuple[int, int], stride: tuple[float, float]) -> tuple[int, int]:
    """Number of rows and columns of cells that show the image, not only its padding."""
    return -int(-size_hw[0] // stride[0]), -int(-size_hw[1] // stride[1])


def _without_padding(scale: ScaleMaps) -> ScaleMaps:
    """Remove the cells that show only padding."""
    rows, columns = cells_of(scale.size_hw, scale.stride)
    return scale._replace(maps=scale.maps[..., :rows, :columns])


def _resample(
    scale: ScaleMaps,
    stride: tuple[float, float],
    size_hw: tuple[int, int],
    grid_hw: Sequence[int],
) -> Tensor:
    """Sum the views of a scale and resample the maps (L, h, w), bilinear between cell centres.

    Args:
        scale: The maps to resample.
        stride: Pixels per cell of the target grid.
        size_hw: Size of the resized image of the target grid.
        grid_hw: Rows and columns of the target grid.
    """
    maps = scale.maps.sum(dim=0)
    if maps.shape[-2:] == tuple(grid_hw) and scale.size_hw == size_hw:
        return maps
    axes = []
    for axis in (0, 1):
        centre = (torch.arange(grid_hw[axis], device=maps.device) + 0.5) * stride[axis]
        cell = centre / size_hw[axis] * scale.size_hw[axis] / scale.stride[axis]
        axes.append(2 * cell / maps.shape[axis + 1] - 1)
    y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([x, y], dim=-1)[None]
    return F.grid_sample(maps[None], grid, padding_mode="border", align_corners=False)[0]


def _merge_release(scales: Sequence[ScaleMaps], shrink: float) -> MergedCam:
    total = torch.zeros(scales[0].maps.shape[1:], device=scales[0].maps.device)
    for scale in scales:
        mean = scale.maps.mean(dim=0)
        low = mean.amin(dim=(-2, -1), keepdim=True)
        span = mean.amax(dim=(-2, -1), keepdim=True) - low
        unit = torch.where(span > 0, (mean - low) / span, 0.0)
        total += F.interpolate(unit[:, None], total.shape[-2:], mode="nearest")[:, 0]
    stride_y, stride_x = scales[0].stride
    return MergedCam(total / len(scales), (stride_y * shrink, stride_x * shrink))
