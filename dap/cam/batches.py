"""Maps of batches of views: features and labels → one map per view and label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .activation import class_activation_map
from .contrast import contrasted_maps
from .rules import Rule
from .views import (
    DEFAULT_VIEWS,
    PAD_MULTIPLE,
    MergedCam,
    ScaleMaps,
    Side,
    View,
    cells_of,
    flips_by_side,
    merge_scales,
    resized_size,
)


class MappedViews(NamedTuple):
    """What a method computes from a batch of views: N images, F views of each.

    Attributes:
        maps: All labels of the first image, then of the second …, not mirrored back, shape
            (F, R, h, w).
        features: The feature map that the maps were made from, shape (F, N, D, h, w).
        pooled: What the logits of an image follow from, summed over its views, shape (N, D).
    """

    maps: Tensor
    features: Tensor
    pooled: Tensor


ViewMaps = Callable[[Tensor, Sequence[Tensor], int], MappedViews]
"""A method to compute maps, of normalised views (F · N, C, H, W), all images in the first view
first, the classes of each image, and F."""


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
    view_maps = partial(linear_maps, features, weight)
    return mapped_image(image, view_maps, labels, views, rule, normalize)


def mapped_image(
    image: Tensor,
    view_maps: ViewMaps,
    labels: Tensor,
    views: Sequence[View] = DEFAULT_VIEWS,
    rule: Rule = "paper",
    normalize: Callable[[Tensor], Tensor] = lambda images: images,
    multiple: int = PAD_MULTIPLE,
) -> MergedCam:
    """Average the maps of several views of one image as :func:`multi_view_cam`, by any method.

    Args:
        image: One image as the classifier's normalisation expects it, shape (C, H, W).
        view_maps: The method.
        labels: Classes of this image, shape (L,); none gives no map.
        views: At least one view, in any order.
        rule: ``'paper'``, ``'release'`` or ``'extent'``.
        normalize: Applied to a batch after the resize and before the padding.
        multiple: Views are padded to a multiple of so many pixels.

    Raises:
        ValueError: If there is no view, ``rule`` is unknown, or ``image`` is not one image.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"image: expected shape (C, H, W), found {tuple(image.shape)}")
    size_hw = (image.shape[1], image.shape[2])
    scales = []
    for side, flips in flips_by_side(views):
        found = mapped_batch([image], side, flips, view_maps, [labels], normalize, multiple, rule)
        scales.append(ScaleMaps(found.maps, found.stride, resized_size(size_hw, side)))
    return merge_scales(scales, size_hw, rule)


def batch_maps(
    images: Sequence[Tensor],
    short_side: Side,
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
    view_maps = partial(linear_maps, features, weight)
    return mapped_batch(images, short_side, flips, view_maps, labels, normalize, rule=rule)


def mapped_batch(
    images: Sequence[Tensor],
    short_side: Side,
    flips: Sequence[bool],
    view_maps: ViewMaps,
    labels: Sequence[Tensor],
    normalize: Callable[[Tensor], Tensor] = lambda images: images,
    multiple: int = PAD_MULTIPLE,
    rule: Rule = "paper",
) -> BatchMaps:
    """Compute the maps of images whose views have one padded size, at one scale, by any method.

    Args:
        images: N images of any kind of number, each of shape (C, H, W), on the device to work on.
        short_side: Length the shorter side is resized to, in pixels.
        flips: Whether to mirror, per view.
        view_maps: The method.
        labels: Classes of each image, each of shape (L,), on the CPU.
        normalize: Applied to a batch after the resize and before the padding.
        multiple: Views are padded to a multiple of so many pixels.
        rule: As in :func:`batch_maps`.
    """
    padded = _padded_views(images, short_side, normalize, multiple)
    batch = torch.cat([padded.flip(-1) if flip else padded for flip in flips])
    maps, features, pooled = view_maps(batch, labels, len(flips))
    maps = torch.stack([m.flip(-1) if flip else m for m, flip in zip(maps, flips, strict=True)])
    stride = (padded.shape[-2] / maps.shape[-2], padded.shape[-1] / maps.shape[-1])
    if rule == "extent":
        resized = (resized_size((i.shape[1], i.shape[2]), short_side) for i in images)
        cells = [cells_of(size_hw, stride) for size_hw in resized]
        maps = contrasted_maps(maps, features, cells, [len(own) for own in labels], flips)
    return BatchMaps(maps, pooled, stride)


def linear_maps(
    features: Callable[[Tensor], Tensor],
    weight: Tensor,
    batch: Tensor,
    labels: Sequence[Tensor],
    flips: int,
) -> MappedViews:
    """The maps of a linear layer behind average pooling, as a :data:`ViewMaps`.

    Args:
        features: Gives the last feature map of a batch (N, C, h, w): shape (N, D, h', w').
        weight: Weight of the linear layer, shape (K, D).
        batch: Normalised views, shape (F · N, C, H, W).
        labels: Classes of each image, each of shape (L,), on the CPU.
        flips: F, the number of views of an image.

    Returns:
        Maps, features, and features averaged over the cells, summed over the views of an image.
    """
    found = features(batch).float()
    pooled = found.mean(dim=(2, 3)).unflatten(0, (flips, len(labels))).sum(dim=0)
    by_flip = found.unflatten(0, (flips, len(labels)))
    if all(len(image_labels) == 1 for image_labels in labels):
        classes = torch.cat(list(labels)).repeat(flips)
        maps = class_activation_map(found, weight.float(), classes)
        maps = maps.unflatten(0, (flips, len(labels)))
    else:
        maps = _maps_of_several_labels(by_flip, weight.float(), labels)
    return MappedViews(maps, by_flip, pooled)


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


def _padded_views(
    images: Sequence[Tensor],
    short_side: Side,
    normalize: Callable[[Tensor], Tensor],
    multiple: int = PAD_MULTIPLE,
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
        for i, view in zip(group, _pad(normalize(resized), multiple), strict=True):
            views[i] = view
    return torch.stack(views)


def _pad(images: Tensor, multiple: int) -> Tensor:
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple))
