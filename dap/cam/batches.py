"""Maps of batches of views: features and labels → one map per view and label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .activation import check_labels, class_activation_map
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
    """What a map method computes from a batch of views: N images, F views of each.

    Attributes:
        maps: Maps of all labels of the first image, then of the second …, in the orientation of
            the view (a mirrored view has a mirrored map), shape (F, R, h, w).
        features: The feature map that the maps were computed from, shape (F, N, D, h, w).
        pooled: Input of the classifier's ``logits``, summed over the views of an image, shape
            (N, D).
    """

    maps: Tensor
    features: Tensor
    pooled: Tensor


ViewMaps = Callable[[Tensor, Sequence[Tensor], int], MappedViews]
"""A map method: a function of normalised views (F · N, C, H, W), ordered by view and then by
image, of the labels of each image, and of F."""


class BatchMaps(NamedTuple):
    """Maps of a batch of images at one scale.

    Attributes:
        maps: Maps of all labels of the first image, then of the second …, mirrored views mirrored
            back, float32, shape (F, R, h, w).
        pooled: Input of the classifier's ``logits``, summed over the views of an image, shape
            (N, D).
        stride: Pixels of the resized images per cell, (y, x).
    """

    maps: Tensor
    pooled: Tensor
    stride: tuple[float, float]


def multi_view_cam(
    image: Tensor,
    view_maps: ViewMaps,
    labels: Tensor,
    views: Sequence[View] = DEFAULT_VIEWS,
    rule: Rule = "paper",
    normalize: Callable[[Tensor], Tensor] = lambda images: images,
    multiple: int = PAD_MULTIPLE,
) -> MergedCam:
    """Average the activation maps of several views of one image (DAP, section 3.1).

    Each view is resized (bilinear, antialiased), normalised and padded with zeros on the right
    and at the bottom to a multiple of 32; a mirrored view is the padded image mirrored, so that
    the cells of its map, mirrored back, coincide with those of the plain view. See
    :func:`merge_scales` for how the maps are merged.

    Args:
        image: One image in the range that ``normalize`` expects, shape (C, H, W).
        view_maps: The map method. For a network with average pooling and a linear layer:
            ``functools.partial(linear_maps, features, weight)``.
        labels: Classes of this image, shape (L,). Without labels, no map is computed.
        views: At least one view, in any order.
        rule: ``'paper'``, ``'release'`` or ``'extent'``.
        normalize: Applied to a batch after the resize and before the padding.
        multiple: Views are padded to a multiple of this number of pixels.

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
        batch = batch_maps([image], side, flips, view_maps, [labels], normalize, multiple, rule)
        scales.append(ScaleMaps(batch.maps, batch.stride, resized_size(size_hw, side)))
    return merge_scales(scales, size_hw, rule)


def batch_maps(
    images: Sequence[Tensor],
    short_side: Side,
    flips: Sequence[bool],
    view_maps: ViewMaps,
    labels: Sequence[Tensor],
    normalize: Callable[[Tensor], Tensor] = lambda images: images,
    multiple: int = PAD_MULTIPLE,
    rule: Rule = "paper",
) -> BatchMaps:
    """Compute the maps, at one scale, of images whose views have the same padded size.

    The result of an image does not depend on the other images of the batch, provided that this
    holds for ``view_maps``.

    Args:
        images: N images of any number type, each of shape (C, H, W), on the device to compute on.
        short_side: Length that the shorter side is resized to, in pixels.
        flips: Whether to mirror, per view.
        view_maps: The map method, see :func:`multi_view_cam`.
        labels: Classes of each image, each of shape (L,), on the CPU.
        normalize: Applied to a batch after the resize and before the padding.
        multiple: Views are padded to a multiple of this number of pixels.
        rule: With ``'extent'`` each map is multiplied by the contrast of the features, see
            :func:`dap.cam.contrast.contrasted_maps`; otherwise it is returned as computed.
    """
    padded = padded_views(images, short_side, normalize, multiple)
    batch = torch.cat([padded.flip(-1) if flip else padded for flip in flips])
    maps, features, pooled = view_maps(batch, labels, len(flips))
    maps = torch.stack([m.flip(-1) if flip else m for m, flip in zip(maps, flips, strict=True)])
    stride = (padded.shape[-2] / maps.shape[-2], padded.shape[-1] / maps.shape[-1])
    if rule == "extent":
        resized = (resized_size((i.shape[1], i.shape[2]), short_side) for i in images)
        cells = [cells_of(size_hw, stride) for size_hw in resized]
        labels_per_image = [len(image_labels) for image_labels in labels]
        maps = contrasted_maps(maps, features, cells, labels_per_image, flips)
    return BatchMaps(maps, pooled, stride)


def linear_maps(
    features: Callable[[Tensor], Tensor],
    weight: Tensor,
    batch: Tensor,
    labels: Sequence[Tensor],
    flips: int,
) -> MappedViews:
    """Compute class activation maps; with its first two arguments bound, a :data:`ViewMaps`.

    Args:
        features: Computes the last feature map of a batch (N, C, h, w), shape (N, D, h', w').
        weight: Weight of the linear layer that follows average pooling, shape (K, D).
        batch: Normalised views, shape (F · N, C, H, W).
        labels: Classes of each image, each of shape (L,), on the CPU.
        flips: F, the number of views per image.

    Returns:
        Maps, features, and features averaged over the cells, summed over the views of an image.

    Raises:
        ValueError: If a label is out of range.
    """
    computed = features(batch).float()
    by_view = computed.unflatten(0, (flips, len(labels)))
    pooled = computed.mean(dim=(2, 3)).unflatten(0, (flips, len(labels))).sum(dim=0)
    if all(len(image_labels) == 1 for image_labels in labels):
        classes = torch.cat(list(labels)).repeat(flips)
        maps = class_activation_map(computed, weight.float(), classes)
        maps = maps.unflatten(0, (flips, len(labels)))
    else:
        maps = _maps_of_several_labels(by_view, weight.float(), labels)
    return MappedViews(maps, by_view, pooled)


def _maps_of_several_labels(features: Tensor, weight: Tensor, labels: Sequence[Tensor]) -> Tensor:
    """Compute one matrix product per image, so that features are not copied for each label.

    Args:
        features: Shape (F, N, D, h, w).
        weight: Shape (K, D).
        labels: Classes of each image, each of shape (L,).

    Returns:
        Maps of all labels of the first image, then of the second …, shape (F, R, h, w).
    """
    all_labels = torch.cat(list(labels))
    check_labels(all_labels, len(weight))
    # One asynchronous copy of all labels: a copy per image would make a GPU idle.
    rows = weight[all_labels.to(weight.device, torch.long, non_blocking=True)]
    maps = [
        image_rows @ features[:, i].flatten(2)
        for i, image_rows in enumerate(rows.split([len(image_labels) for image_labels in labels]))
    ]
    return torch.cat(maps, dim=1).unflatten(2, features.shape[-2:])


def padded_views(
    images: Sequence[Tensor],
    short_side: Side,
    normalize: Callable[[Tensor], Tensor],
    multiple: int = PAD_MULTIPLE,
) -> Tensor:
    """Resize, normalise and pad images whose views have the same padded size.

    Images of the same size are processed in one call.

    Args:
        images: N images, each of shape (C, H, W).
        short_side: Length that the shorter side is resized to, in pixels.
        normalize: Applied to a batch after the resize and before the padding.
        multiple: Views are padded to a multiple of this number of pixels.

    Returns:
        Views, float32, shape (N, C, h, w).
    """
    by_size: dict[tuple[int, int], list[int]] = {}
    for i, image in enumerate(images):
        by_size.setdefault((image.shape[1], image.shape[2]), []).append(i)
    views: list[Tensor] = [images[0]] * len(images)
    for size_hw, group in by_size.items():
        stacked = torch.stack([images[i] for i in group]).float()
        size = resized_size(size_hw, short_side)
        resized = F.interpolate(stacked, size, mode="bilinear", align_corners=False, antialias=True)
        normalized = normalize(resized)
        height, width = normalized.shape[-2:]
        padded = F.pad(normalized, (0, -width % multiple, 0, -height % multiple))
        for i, view in zip(group, padded, strict=True):
            views[i] = view
    return torch.stack(views)
