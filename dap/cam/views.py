"""One map from several views of an image: scales and the left-right mirror."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .activation import class_activation_map
from .contrast import contrasted_maps
from .rules import RULES, Rule

PAD_MULTIPLE = 32
MAX_ASPECT = 10


class View(NamedTuple):
    """One way to show an image to the classifier.

    Attributes:
        short_side: Length the shorter side is resized to, in pixels; the aspect ratio stays.
        flip: Whether the image is mirrored left to right.
    """

    short_side: int
    flip: bool = False


DEFAULT_VIEWS = (View(288), View(288, True), View(576), View(576, True))
"""The views of the paper (section 4.1): short sides 288 and 576, each with its mirror image."""


def make_views(short_sides: Sequence[int] = (288, 576), flip: bool = True) -> tuple[View, ...]:
    """List the views of some short sides, each with its mirror image if ``flip``.

    Raises:
        ValueError: If there is no short side, or one is not a positive integer.
    """
    sides = list(short_sides)
    if not sides or not all(isinstance(side, Integral) and side > 0 for side in sides):
        raise ValueError(f"short_sides: expected positive pixel counts, found {short_sides!r}")
    sides = [int(side) for side in sides]
    flips = (False, True) if flip else (False,)
    return tuple(View(side, flipped) for side in sides for flipped in flips)


def resized_size(image_size_hw: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Height and width of an image whose shorter side is brought to ``short_side`` pixels.

    The aspect ratio stays. A strip that would be longer than ``MAX_ASPECT`` times the short side
    is made smaller as a whole, so that one odd image cannot fill the memory.
    """
    scale = min(short_side / min(image_size_hw), MAX_ASPECT * short_side / max(image_size_hw))
    height, width = (max(1, round(side * scale)) for side in image_size_hw)
    return height, width


class MergedCam(NamedTuple):
    """The map that boxes are taken from.

    Attributes:
        maps: One map per label, shape (L, H, W).
        cell_size: Pixels of the original image per cell, (y, x).
    """

    maps: Tensor
    cell_size: tuple[float, float]

    def over_image(self, image_size_hw: tuple[int, int], index: int = 0) -> np.ndarray:
        """Lay the map of one label over its image, see :func:`map_over_image`."""
        return map_over_image(self.maps[index].cpu().numpy(), self.cell_size, image_size_hw)


class ScaleMaps(NamedTuple):
    """Maps of one image at one scale.

    Attributes:
        maps: All flips, mirrored back, of all labels, float32, shape (F, L, h, w).
        stride: Pixels of the resized image per cell, (y, x).
        size_hw: Height and width of the resized image without padding.
    """

    maps: Tensor
    stride: tuple[float, float]
    size_hw: tuple[int, int]


class BatchMaps(NamedTuple):
    """Maps of a batch of images at one scale.

    Attributes:
        maps: All flips, mirrored back, of all labels of the first image, then of the second …,
            float32, shape (F, R, h, w).
        pooled: Features averaged over the cells, summed over the flips, shape (N, D).
        stride: Pixels of the resized images per cell, (y, x).
    """

    maps: Tensor
    pooled: Tensor
    stride: tuple[float, float]


def multi_view_cam(
    image: Tensor,
    features: Callable[[Tensor], Tensor],
    weight: Tensor,
    labels: Tensor,
    views: Sequence[View] = DEFAULT_VIEWS,
    rule: Rule = "paper",
    normalize: Callable[[Tensor], Tensor] = lambda images: images,
) -> MergedCam:
    """Average the class activation maps of several views of one image (DAP, section 3.1).

    Each view is resized (bilinear, antialiased), normalised and padded with zeros on the right
    and at the bottom to a multiple of 32; a mirrored view is the padded image mirrored, so that
    its map, mirrored back, lies cell on cell. See :func:`merge_scales` for what becomes of them.

    Args:
        image: One image as the classifier's normalisation expects it, shape (C, H, W).
        features: Gives the last feature map of a batch (N, C, h, w): shape (N, D, h', w').
        weight: Weight of the linear layer, shape (K, D).
        labels: Classes of this image, shape (L,); none gives no map.
        views: At least one view, in any order.
        rule: ``'paper'``, ``'release'`` or ``'extent'``.
        normalize: Applied to a batch after the resize and before the padding.

    Returns:
        One map per label, float32, and the size of a cell in pixels of ``image``.

    Raises:
        ValueError: If there is no view, ``rule`` is unknown, or ``image`` is not one image.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"image: expected shape (C, H, W), found {tuple(image.shape)}")
    size_hw = (image.shape[1], image.shape[2])
    scales = []
    for side, flips in flips_by_side(views):
        found = batch_maps([image], side, flips, features, weight, [labels], normalize, rule)
        scales.append(ScaleMaps(found.maps, found.stride, resized_size(size_hw, side)))
    return merge_scales(scales, size_hw, rule)


def flips_by_side(views: Sequence[View]) -> list[tuple[int, list[bool]]]:
    """Group views by their short side, largest first: each with whether it is mirrored.

    Raises:
        ValueError: If there is no view.
    """
    if not views:
        raise ValueError("views: expected at least one view, found none")
    sides = sorted({view.short_side for view in views}, reverse=True)
    return [(side, [v.flip for v in views if v.short_side == side]) for side in sides]


def padded_size(image_size_hw: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Height and width of a view: of :func:`resized_size`, padded to a multiple of 32."""
    height, width = resized_size(image_size_hw, short_side)
    return height + -height % PAD_MULTIPLE, width + -width % PAD_MULTIPLE


def batch_maps(
    images: Sequence[Tensor],
    short_side: int,
    flips: Sequence[bool],
    features: Callable[[Tensor], Tensor],
    weight: Tensor,
    labels: Sequence[Tensor],
    normalize: Callable[[Tensor], Tensor] = lambda images: images,
    rule: Rule = "paper",
) -> BatchMaps:
    """Compute the maps of images whose views have one padded size, at one scale.

    Args:
        images: N images of any kind of number, each of shape (C, H, W), on the device to work on.
        short_side: Length the shorter side is resized to, in pixels.
        flips: Whether to mirror, per view.
        features: Gives the last feature map of a batch (N, C, h, w): shape (N, D, h', w').
        weight: Weight of the linear layer, shape (K, D).
        labels: Classes of each image, each of shape (L,), on the CPU.
        normalize: Applied to a batch after the resize and before the padding.
        rule: Under ``'extent'`` each map is joined with the contrast of the features, see
            :func:`dap.cam.contrast.contrasted_maps`; else it is the class activation map.

    Returns:
        Maps and averaged features; for one image the same, whatever the others are, as far as
        ``features`` gives the same.
    """
    padded = _padded_views(images, short_side, normalize)
    batch = torch.cat([padded.flip(-1) if flip else padded for flip in flips])
    found = features(batch).float()
    pooled = found.mean(dim=(2, 3)).unflatten(0, (len(flips), len(images))).sum(dim=0)
    by_flip = found.unflatten(0, (len(flips), len(images)))
    if all(len(image_labels) == 1 for image_labels in labels):
        classes = torch.cat(list(labels)).repeat(len(flips))
        maps = class_activation_map(found, weight.float(), classes)
        maps = maps.unflatten(0, (len(flips), len(images)))
    else:
        maps = _maps_of_several_labels(by_flip, weight.float(), labels)
    maps = torch.stack([m.flip(-1) if flip else m for m, flip in zip(maps, flips, strict=True)])
    stride = (padded.shape[-2] / maps.shape[-2], padded.shape[-1] / maps.shape[-1])
    if rule == "extent":
        resized = (resized_size((i.shape[1], i.shape[2]), short_side) for i in images)
        cells = [cells_of(size_hw, stride) for size_hw in resized]
        maps = contrasted_maps(maps, by_flip, cells, [len(own) for own in labels], flips)
    return BatchMaps(maps, pooled, stride)


def _maps_of_several_labels(features: Tensor, weight: Tensor, labels: Sequence[Tensor]) -> Tensor:
    """Compute one product per image, so that no features are copied for each label.

    Args:
        features: Shape (F, N, D, h, w).
        weight: Shape (K, D).
        labels: Classes of each image, each of shape (L,).

    Returns:
        Maps of all labels of the first image, then of the second …, shape (F, R, h, w).

    Raises:
        ValueError: If a label is out of range.
    """
    all_labels = torch.cat(list(labels))
    if all_labels.numel() and not 0 <= int(all_labels.min()) <= int(all_labels.max()) < len(weight):
        raise ValueError(
            f"labels: expected classes in [0, {len(weight)}) as the linear layer has "
            f"{len(weight)} rows, found {int(all_labels.min())} to {int(all_labels.max())}"
        )
    # One copy of all labels that nothing waits for: one per image would make a GPU idle.
    rows = weight[all_labels.to(weight.device, torch.long, non_blocking=True)]
    maps = [
        image_rows @ features[:, i].flatten(2)
        for i, image_rows in enumerate(rows.split([len(of_image) for of_image in labels]))
    ]
    return torch.cat(maps, dim=1).unflatten(2, features.shape[-2:])


def merge_scales(scales: Sequence[ScaleMaps], image_size_hw: tuple[int, int], rule: Rule = "paper"
                 ) -> MergedCam:  # fmt: skip
    """Merge the maps of one image at all scales.

    ``rule='paper'`` and ``'extent'``: cells that show padding alone are cut off; the maps of all
    views are brought to the grid of the largest view by bilinear interpolation between cell
    centres, each centre at its place in the image, and averaged. The result is not normalised:
    eq. 1 belongs to :func:`~dap.cam.boxes_from_cam`. ``rule='release'``: as the official release
    does it, the maps of a scale and its mirror are averaged and normalised to [0, 1], padded cells
    included; the scales are brought to the largest grid by nearest neighbours and averaged, and
    one cell is ``stride · min(H, W) / short_side`` pixels both ways.

    All rules take the centre of a cell for the centre of what it sees. The padding of strided
    convolutions puts that up to half a cell off. With TensorFlow's SAME padding (EfficientNet-lite)
    a cell of an untrained network sees what lies half a cell further down and to the right, so that
    the map lies half a cell too far up and left; with the symmetric padding of ResNet it lies half
    a cell too far down and right. Training can undo most of it. The mirror cancels it sideways
    alone: a map and its mirrored twin are shifted against each other, and their average is not.
    ``tools/benchmarks/half_cell.py`` measures what is left, and what moving the cells would give.

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
    """Lay a map over its image, each cell at its place, bilinear, its range made [0, 1].

    Args:
        cam: Map of one label, shape (h, w).
        cell_size: Pixels of the image per cell, (y, x).
        image_size_hw: Height and width of the image. Cells beyond it are cut off; pixels beyond
            the map, if rounding leaves any, take the nearest value.

    Returns:
        float32, shape (H, W); zeros for a constant map.

    Raises:
        ValueError: If the map is not finite.
    """
    if not np.isfinite(cam).all():
        raise ValueError(f"cam: expected a finite map, found NaN or infinity in {cam.shape}")
    height, width = image_size_hw
    full = tuple(max(1, round(n * side)) for n, side in zip(cam.shape, cell_size, strict=True))
    large = cv2.resize(cam.astype(np.float32), full[::-1], interpolation=cv2.INTER_LINEAR)
    missing = max(0, height - full[0]), max(0, width - full[1])
    large = cv2.copyMakeBorder(large, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
    large = large[:height, :width]
    low, high = float(large.min()), float(large.max())
    return (large - low) / (high - low) if high > low else np.zeros_like(large)


def _padded_views(
    images: Sequence[Tensor], short_side: int, normalize: Callable[[Tensor], Tensor]
) -> Tensor:
    """Resize, normalise and pad; images of one size go through together."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for i, image in enumerate(images):
        by_size.setdefault((image.shape[1], image.shape[2]), []).append(i)
    views: list[Tensor] = [images[0]] * len(images)
    for size_hw, group in by_size.items():
        stacked = torch.stack([images[i] for i in group]).float()
        size = resized_size(size_hw, short_side)
        resized = F.interpolate(stacked, size, mode="bilinear", align_corners=False, antialias=True)
        for i, view in zip(group, _pad(normalize(resized)), strict=True):
            views[i] = view
    return torch.stack(views)


def _pad(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % PAD_MULTIPLE, 0, -height % PAD_MULTIPLE))


def _merge_paper(scales: Sequence[ScaleMaps], image_size_hw: tuple[int, int]) -> MergedCam:
    finest = _without_padding(scales[0])
    cell_size = tuple(
        stride * side / resized
        for stride, side, resized in zip(finest.stride, image_size_hw, finest.size_hw, strict=True)
    )
    grid_hw = finest.maps.shape[-2:]
    total = torch.zeros(finest.maps.shape[1:], device=finest.maps.device)
    for scale in scales:
        own = _without_padding(scale)
        summed = own.maps.sum(dim=0)
        total += _resample(summed, own, finest.stride, finest.size_hw, grid_hw)
    count = sum(len(scale.maps) for scale in scales)
    return MergedCam(total / count, (cell_size[0], cell_size[1]))


def cells_of(size_hw: tuple[int, int], stride: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of cells that show some of an image of this size, without its padding."""
    return -int(-size_hw[0] // stride[0]), -int(-size_hw[1] // stride[1])


def _without_padding(scale: ScaleMaps) -> ScaleMaps:
    """Cut off the cells in which nothing of the image is to be seen."""
    rows, columns = cells_of(scale.size_hw, scale.stride)
    return scale._replace(maps=scale.maps[..., :rows, :columns])


def _resample(
    maps: Tensor,
    own: ScaleMaps,
    stride: tuple[float, float],
    size_hw: tuple[int, int],
    grid_hw: Sequence[int],
) -> Tensor:
    """Bring maps (L, h, w) to another scale's grid: bilinear between cell centres."""
    if maps.shape[-2:] == tuple(grid_hw) and own.size_hw == size_hw:
        return maps
    axes = []
    for axis in (0, 1):
        centre = (torch.arange(grid_hw[axis], device=maps.device) + 0.5) * stride[axis]
        cell = centre / size_hw[axis] * own.size_hw[axis] / own.stride[axis]
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
