"""Maps of the rule ``'extent'``: class activation times the contrast of the features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .boxes import FLAT


def contrasted_maps(
    maps: Tensor,
    features: Tensor,
    sizes_cells: Sequence[tuple[int, int]],
    labels_per_image: Sequence[int],
    flips: Sequence[bool],
) -> Tensor:
    """Join each class activation map with the contrast of the features it was made from.

    A class activation map is high on what tells the class from other classes, often a part of
    the object, such as the head of a dog. How far the features of a cell are from their mean over
    the image does not depend on the class and is high on the whole object. The result is the
    geometric mean of both, each brought to [0, 1] on the cells of the image.

    Args:
        maps: Class activation maps of all flips, mirrored back, of all labels of the first image,
            then of the second …, shape (F, R, h, w).
        features: Of all flips as the network saw them, not mirrored back, shape (F, N, D, h, w).
        sizes_cells: Rows and columns of each image that show more than padding, N of them.
        labels_per_image: Number of labels of each image, R in all.
        flips: Whether the views are mirrored, F of them.

    Returns:
        Values in [0, 1] in the cells of the image, shape (F, R, h, w). Zeros where the class
        activation map or the contrast is constant; NaN where values are not finite.
    """
    inside = _cells_inside(sizes_cells, maps)
    seen = torch.stack([inside.flip(-1) if flip else inside for flip in flips])
    contrast = feature_contrast(features, seen)
    contrast = torch.stack(
        [c.flip(-1) if flip else c for c, flip in zip(contrast, flips, strict=True)]
    )
    if any(count != 1 for count in labels_per_image):
        rows = torch.arange(len(inside)).repeat_interleave(torch.tensor(labels_per_image))
        rows = rows.to(maps.device, non_blocking=True)
        inside, contrast = inside[rows], contrast[:, rows]
    return (_unit(maps, inside) * _unit(contrast, inside)).sqrt()


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
