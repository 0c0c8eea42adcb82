"""Maps of the rule ``'extent'``: class activation combined with the contrast of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .boxes import FLAT

SPREAD_STEPS = 2


def contrasted_maps(
    maps: Tensor,
    features: Tensor,
    sizes_cells: Sequence[tuple[int, int]],
    labels_per_image: Sequence[int],
    flips: Sequence[bool],
) -> Tensor:
    """Combine each class activation map with the features it was computed from.

    A class activation map a is high where the image differs from other classes, often on a part of
    the object, such as the head of a dog. Two other maps are high on the whole object. The
    contrast c is the distance of a cell's features from their mean over the image; it does not
    depend on the class (:func:`feature_contrast`). The map s is the map a, spread to cells with
    similar features (:func:`spread_maps`). The result is their geometric mean
    :math:`(a c s)^{1/3}`, each of them normalised to [0, 1] on the cells of the image.

    Args:
        maps: Class activation maps of all labels of the first image, then of the second …, those
            of mirrored views mirrored back, shape (F, R, h, w).
        features: Features of the views; those of mirrored views are mirrored, shape
            (F, N, D, h, w).
        sizes_cells: Rows and columns of each of N images, without cells that show only padding.
        labels_per_image: Number of labels of each image, R in total.
        flips: Whether each of F views is mirrored.

    Returns:
        Values in [0, 1] in the cells of the image, shape (F, R, h, w). Zeros if one of the three
        maps is constant; NaN if it has values that are not finite.
    """
    inside = _mirrored(_cells_inside(sizes_cells, maps).expand(len(flips), -1, -1, -1), flips)
    contrast = _unit(feature_contrast(features, inside), inside)
    directions = centred_directions(features, inside)
    if any(count != 1 for count in labels_per_image):
        rows = torch.arange(len(sizes_cells)).repeat_interleave(torch.tensor(labels_per_image))
        rows = rows.to(maps.device, non_blocking=True)
        inside, contrast, directions = inside[:, rows], contrast[:, rows], directions[:, rows]
    activation = _unit(_mirrored(maps, flips), inside)
    spread = _unit(spread_maps(activation, directions, inside), inside)
    product = (activation * contrast * spread).double()  # pow in float32 varies with the batch
    return _mirrored(product.pow(1 / 3).to(maps.dtype), flips)


def centred_directions(features: Tensor, inside: Tensor) -> Tensor:
    """Normalise the features of each cell to length 1 and subtract their mean over the image.

    Args:
        features: Shape (…, D, h, w).
        inside: Which cells belong to the image, at least one, bool, shape (…, h, w).

    Returns:
        Shape (…, D, h · w), zeros in cells outside the image.
    """
    mask = inside.to(features.dtype)[..., None, :, :]
    directions = torch.nn.functional.normalize(features, dim=-3) * mask
    mean = directions.sum(dim=(-2, -1), keepdim=True) / mask.sum(dim=(-2, -1), keepdim=True)
    return ((directions - mean) * mask).flatten(-2)


def spread_maps(maps: Tensor, directions: Tensor, inside: Tensor) -> Tensor:
    """Spread maps to cells with similar features, in :data:`SPREAD_STEPS` steps.

    A step sets each cell to the sum, over all cells, of the centred map times the similarity of
    the two cells, which is the product of their centred directions. Many steps converge to the
    first principal component of the directions, with which CAM-Back-Again (Yasuki and Taki, CVPR
    2024) localises; after a few steps the result still depends on the class.

    Args:
        maps: Shape (…, h, w).
        directions: From :func:`centred_directions`, shape (…, D, h · w).
        inside: Which cells belong to the image, bool, shape (…, h, w).

    Returns:
        Shape (…, h, w), any range; the maps themselves if all features have the same direction.
    """
    mask = inside.to(maps.dtype)
    mean = (maps * mask).sum(dim=(-2, -1), keepdim=True) / mask.sum(dim=(-2, -1), keepdim=True)
    spread = ((maps - mean) * mask).flatten(-2)[..., None]
    for _ in range(SPREAD_STEPS):
        spread = directions.mT @ (directions @ spread)
    variance = directions.square().sum(dim=(-2, -1)) / mask.sum(dim=(-2, -1))  # 0 to 1
    same_direction = (variance <= FLAT**2)[..., None, None]
    return torch.where(same_direction, maps, spread[..., 0].unflatten(-1, maps.shape[-2:]))


def feature_contrast(features: Tensor, inside: Tensor) -> Tensor:
    """Compute the distance of each cell's features from their mean over the image.

    Args:
        features: Shape (…, D, h, w).
        inside: Which cells belong to the image, at least one, bool, shape (…, h, w).

    Returns:
        Euclidean distances, shape (…, h, w).
    """
    mask = inside.to(features.dtype)[..., None, :, :]
    mean = (features * mask).sum(dim=(-2, -1), keepdim=True) / mask.sum(dim=(-2, -1), keepdim=True)
    return torch.linalg.vector_norm(features - mean, dim=-3)


def _mirrored(values: Tensor, flips: Sequence[bool]) -> Tensor:
    """Mirror the values of mirrored views, shape (F, …, w)."""
    return torch.stack([v.flip(-1) if flip else v for v, flip in zip(values, flips, strict=True)])


def _cells_inside(sizes_cells: Sequence[tuple[int, int]], maps: Tensor) -> Tensor:
    """Which cells of each image show more than padding, bool, shape (N, h, w)."""
    rows, columns = (
        torch.tensor(sides).to(maps.device, non_blocking=True)[:, None]
        for sides in zip(*sizes_cells, strict=True)
    )
    rows_inside = torch.arange(maps.shape[-2], device=maps.device) < rows
    columns_inside = torch.arange(maps.shape[-1], device=maps.device) < columns
    return rows_inside[:, :, None] & columns_inside[:, None, :]


def _unit(maps: Tensor, inside: Tensor) -> Tensor:
    """Normalise maps to [0, 1] by their range inside the image; zeros for constant maps."""
    low = torch.where(inside, maps, torch.inf).amin(dim=(-2, -1), keepdim=True)
    high = torch.where(inside, maps, -torch.inf).amax(dim=(-2, -1), keepdim=True)
    span = high - low
    flat = (span <= FLAT * torch.maximum(low.abs(), high.abs())) & span.isfinite()
    return torch.where(flat, 0.0, (maps - low) / span).clamp(0, 1)
