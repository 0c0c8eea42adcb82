"""Maps of the rule ``'extent'``: class activation joined with what the features say."""

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
    """Join each class activation map with the features it was made from.

    A class activation map is high on what tells the class from other classes, often a part of
    the object, such as the head of a dog. Two more maps are high on the whole object: the contrast
    c, how far the features of a cell are from their mean over the image, which does not depend on
    the class (:func:`feature_contrast`); and the map a itself, spread to cells with alike features
    (:func:`spread_maps`), s. The result is :math:`(a c s)^{1/3}`, each of the three brought to
    [0, 1] on the cells of the image.

    Args:
        maps: Class activation maps of all flips, mirrored back, of all labels of the first image,
            then of the second …, shape (F, R, h, w).
        features: Of all flips as the network saw them, not mirrored back, shape (F, N, D, h, w).
        sizes_cells: Rows and columns of each image that show more than padding, N of them.
        labels_per_image: Number of labels of each image, R in all.
        flips: Whether the views are mirrored, F of them.

    Returns:
        Values in [0, 1] in the cells of the image, shape (F, R, h, w). Zeros where one of the three
        is constant; NaN where values are not finite.
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
    product = (activation * contrast * spread).double()  # in float32, last bits vary with the batch
    return _mirrored(product.pow(1 / 3).to(maps.dtype), flips)


def centred_directions(features: Tensor, inside: Tensor) -> Tensor:
    """Bring the features of each cell to length 1, and subtract their mean over the image.

    Args:
        features: Shape (…, D, h, w).
        inside: Which cells are of the image, at least one, shape (…, h, w).

    Returns:
        Shape (…, D, h · w), zeros in cells that are not of the image.
    """
    mask = inside.to(features.dtype)[..., None, :, :]
    directions = torch.nn.functional.normalize(features, dim=-3) * mask
    mean = directions.sum(dim=(-2, -1), keepdim=True) / mask.sum(dim=(-2, -1), keepdim=True)
    return ((directions - mean) * mask).flatten(-2)


def spread_maps(maps: Tensor, directions: Tensor, inside: Tensor) -> Tensor:
    """Spread maps to cells with alike features, :data:`SPREAD_STEPS` times.

    A step gives each cell the sum over all cells of map times similarity, where the map has its
    mean subtracted, and the similarity of two cells is the product of their centred directions.
    Steps without end would lead to the first principal component of the directions, with which
    CAM-Back-Again (Yasuki and Taki, CVPR 2024) localises; few of them stay near the class.

    Args:
        maps: Shape (…, h, w).
        directions: From :func:`centred_directions`, shape (…, D, h · w).
        inside: Which cells are of the image, shape (…, h, w).

    Returns:
        Shape (…, h, w), any range; the maps themselves where all features have one direction.
    """
    mask = inside.to(maps.dtype)
    mean = (maps * mask).sum(dim=(-2, -1), keepdim=True) / mask.sum(dim=(-2, -1), keepdim=True)
    spread = ((maps - mean) * mask).flatten(-2)[..., None]
    for _ in range(SPREAD_STEPS):
        spread = directions.mT @ (directions @ spread)
    size = directions.square().sum(dim=(-2, -1)) / mask.sum(dim=(-2, -1))  # 0 to 1
    alike = (size <= FLAT**2)[..., None, None]
    return torch.where(alike, maps, spread[..., 0].unflatten(-1, maps.shape[-2:]))


def feature_contrast(features: Tensor, inside: Tensor) -> Tensor:
    """Distance of the features of each cell from their mean over the cells of the image.

    Args:
        features: Shape (…, D, h, w).
        inside: Which cells are of the image, at least one, shape (…, h, w).

    Returns:
        Euclidean distances, shape (…, h, w).
    """
    mask = inside.to(features.dtype)[..., None, :, :]
    mean = (features * mask).sum(dim=(-2, -1), keepdim=True) / mask.sum(dim=(-2, -1), keepdim=True)
    return torch.linalg.vector_norm(features - mean, dim=-3)


def _mirrored(values: Tensor, flips: Sequence[bool]) -> Tensor:
    """Mirror what belongs to mirrored views, shape (F, …, w)."""
    return torch.stack([v.flip(-1) if flip else v for v, flip in zip(values, flips, strict=True)])


def _cells_inside(sizes_cells: Sequence[tuple[int, int]], maps: Tensor) -> Tensor:
    """Which cells of a batch are of their image, bool, shape (N, h, w)."""
    rows, columns = (
        torch.tensor(sides).to(maps.device, non_blocking=True)[:, None]
        for sides in zip(*sizes_cells, strict=True)
    )
    of_rows = torch.arange(maps.shape[-2], device=maps.device) < rows
    of_columns = torch.arange(maps.shape[-1], device=maps.device) < columns
    return of_rows[:, :, None] & of_columns[:, None, :]


def _unit(maps: Tensor, inside: Tensor) -> Tensor:
    """Bring maps to [0, 1] by their values inside; zeros for what is constant there."""
    low = torch.where(inside, maps, torch.inf).amin(dim=(-2, -1), keepdim=True)
    high = torch.where(inside, maps, -torch.inf).amax(dim=(-2, -1), keepdim=True)
    span = high - low
    flat = (span <= FLAT * torch.maximum(low.abs(), high.abs())) & span.isfinite()
    return torch.where(flat, 0.0, (maps - low) / span).clamp(0, 1)
