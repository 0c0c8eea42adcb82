"""Masks of components: from the cells of a map to the pixels of the image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .extents import enlarged


class ComponentMask(NamedTuple):
    """A component of a thresholded map, on a grid of cells over the image.

    Attributes:
        cells: Which cells belong to the component, at least one, bool, shape (h, w).
        cell_size: Height and width of a cell, in pixels of the image or in cells of the map.
    """

    cells: np.ndarray
    cell_size: tuple[float, float]

    def scaled(self, cell_y: float, cell_x: float) -> ComponentMask:
        """Convert the mask to pixels, given the size of a cell of the map in pixels."""
        return ComponentMask(self.cells, (self.cell_size[0] * cell_y, self.cell_size[1] * cell_x))

    def over_image(self, size_hw: tuple[int, int]) -> np.ndarray:
        """Rasterise the mask: the pixels whose centre is in a cell of the component.

        If there are none, because cells are smaller than pixels, the mask consists of the pixels
        that contain the centre of a cell of the component.

        Args:
            size_hw: Height and width of the image in pixels.

        Returns:
            bool, shape (H, W), with at least one pixel.
        """
        rows, columns = (
            np.minimum((np.arange(side) + 0.5) / step, count - 1).astype(np.intp)
            for side, step, count in zip(size_hw, self.cell_size, self.cells.shape, strict=True)
        )
        mask = self.cells[rows][:, columns]
        if not mask.any():
            inside = (
                np.minimum((at + 0.5) * step, side - 1).astype(np.intp)
                for at, step, side in zip(
                    np.nonzero(self.cells), self.cell_size, size_hw, strict=True
                )
            )
            mask[tuple(inside)] = True
        return mask


def level_set(
    cam: np.ndarray, component: np.ndarray, tau: float, size_cells: tuple[float, float]
) -> ComponentMask:
    """Enlarge a component of a map above τ, bilinear between the centres of its cells.

    The cells of other components are lowered to τ, the map is enlarged, and the cells above τ are
    the mask, so that its edge is where the map crosses τ. If no cell of the enlarged map is above
    τ, because the component is a peak slightly above τ, the mask has the cells of the component.

    Args:
        cam: Map, float64, shape (H, W).
        component: The cells of the component, all above ``tau``, bool, shape (H, W).
        tau: The threshold.
        size_cells: Height and width of the image in cells; cells that start beyond are removed.

    Returns:
        The mask, in cells of the map.
    """
    above = cam - tau
    large, factor = enlarged(np.where(component, above, np.minimum(above, 0)), size_cells)
    cells = large > 0
    if not cells.any():
        return ComponentMask(component, (1.0, 1.0))
    return ComponentMask(cells, (1 / factor, 1 / factor))
