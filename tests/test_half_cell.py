"""tools/benchmarks/half_cell.py: cells that are moved, and shifts that are planted in maps."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "tools" / "benchmarks"))

import half_cell

from dap import cam


def scale_maps(place, shift, image_hw):
    """Maps of a round object at a place (y, x), in shares of the image, at short side 576 and 288.

    Views show it ``shift`` cells too far up and left; so the mirrored one, mirrored back, too far
    up and right.
    """
    scales = []
    for factor in (2, 1):
        size_hw = (image_hw[0] * factor, image_hw[1] * factor)
        y, x = (share * side / 32 - 0.5 for share, side in zip(place, size_hw, strict=True))
        rows, columns = (np.arange(-(-side // 32)) for side in size_hw)
        distances = [
            (rows[:, None] - y + shift[0]) ** 2 + (columns - x + sideways) ** 2
            for sideways in (shift[1], -shift[1])
        ]
        maps = torch.tensor(np.exp(-np.array(distances) / (8 * factor**2)), dtype=torch.float32)
        scales.append(cam.ScaleMaps(maps[:, None], (32.0, 32.0), size_hw))
    return scales


def case(place=(0.5, 0.5), shift=(0.0, 0.0), image_hw=(288, 400)):
    """Of 400 px the last cell sees a half; of the wider view, 800 px, too."""
    turned = scale_maps((1 - place[0], place[1]), shift, image_hw)
    scales = scale_maps(place, shift, image_hw)
    return half_cell.Case(image_hw, 0, np.zeros((0, 4)), scales, turned)


def test_without_a_move_boxes_are_those_of_step_2():
    one = case((0.45, 0.6), (0.0, 0.3))
    merged = cam.merge_scales(one.scales, one.size_hw)
    expected, _ = cam.boxes_from_cam(
        merged.maps[0].numpy(), cell_size=merged.cell_size, image_size_hw=one.size_hw
    )
    assert len(expected) > 1
    np.testing.assert_allclose(half_cell.boxes_of(one, (0, 0)), expected, atol=0.006)


@pytest.mark.parametrize("shift", [0.25, -0.5])
def test_move_undoes_a_shift_of_as_many_cells_of_each_scale(shift):
    """Cells are 16 and 32 px: a shift of .25 is one of 4 and of 8 px, 6 when they are merged."""
    true, shifted, moved = (
        half_cell.boxes_of(one, moves)[0, [1, 3]].mean()  # of the largest box
        for one, moves in (
            (case(), (0, 0)),
            (case(shift=(shift, 0)), (0, 0)),
            (case(shift=(shift, 0)), (shift, shift)),
        )
    )
    assert true == pytest.approx(144, abs=0.01)
    assert moved == pytest.approx(144, abs=1)  # thresholds cut the maps between other cells
    assert 144 - shifted == pytest.approx(24 * shift, rel=0.2)


def test_boxes_are_clipped_where_they_lie_after_the_move():
    """Half a cell of the finest scale is 8 px."""
    before = half_cell.boxes_of(case((0.02, 0.5)), (0, 0))
    after = half_cell.boxes_of(case((0.02, 0.5)), (0.5, 0.5))
    assert before[:, 1].tolist() == [0] * len(before)
    assert 0 < after[-1, 1] < 8
    below = half_cell.boxes_of(case((0.98, 0.5)), (0.5, 0.5))
    assert below[:, 3].tolist() == [288] * len(below)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shift", [0.1, -0.2])
def test_planted_shift_is_found(axis, shift):
    planted = (shift, 0.0) if axis == 0 else (0.0, shift)
    cases = [case((place, 0.5), planted, (288, 288)) for place in (0.4, 0.5, 0.55)]
    for scale in (0, 1):
        estimate, error = half_cell.estimated_shift(cases, scale, axis)
        assert estimate == pytest.approx(shift, rel=0.25)
        assert error < 0.02
        other, _ = half_cell.estimated_shift(cases, scale, 1 - axis)
        assert other == pytest.approx(0, abs=0.01)
