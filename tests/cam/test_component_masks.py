"""Masks of components: hand-drawn maps, and properties of smooth ones."""

import cv2
import numpy as np
import pytest

from dap.cam import RULES, box_candidates
from dap.cam.masks import ComponentMask, level_set

ROW = np.array([[0, 0, 1, 1, 1, 0, 0]], float)


def smooth_map(seed):
    small = np.random.default_rng(seed).random((4, 5)).astype(np.float32)
    return cv2.resize(small, (13, 11), interpolation=cv2.INTER_CUBIC)


def drawn(mask):
    return ["".join(".#"[cell] for cell in row) for row in mask.astype(int)]


def test_pixels_whose_centre_lies_in_a_cell():
    """Columns of 1.5 pixels: the centre of the middle pixel, 1.5, is the start of the second."""
    mask = ComponentMask(np.array([[True, False], [False, True]]), (2.0, 1.5))
    assert drawn(mask.over_image((4, 3))) == ["#..", "#..", ".##", ".##"]


def test_cells_smaller_than_pixels_leave_one():
    """Of 4 x 4 cells on 2 x 2 pixels, the only one does not lie under a centre."""
    cells = np.zeros((8, 8), bool)
    cells[6, 0] = True
    assert drawn(ComponentMask(cells, (0.25, 0.25)).over_image((2, 2))) == ["..", "#."]


def test_edge_lies_where_the_map_crosses_the_threshold():
    """Between the centres of 0 and 1 the enlarged map is .5 on the cell's edge, .2 nearer to 0."""
    component = ROW > 0
    half = level_set(ROW, component, 0.5, (1, 7)).scaled(90, 90).over_image((90, 630))
    columns = np.flatnonzero(half.any(axis=0))
    assert (columns[0], columns[-1] + 1) == (180, 450)
    assert half[:, 180:450].all()
    low = level_set(ROW, component, 0.2, (1, 7)).scaled(90, 90).over_image((90, 630))
    columns = np.flatnonzero(low.any(axis=0))
    assert abs(columns[0] - (180 - 0.3 * 90)) <= 5  # a cell of the finer grid has 5 pixels
    assert abs(columns[-1] + 1 - (450 + 0.3 * 90)) <= 5


def test_neighbours_do_not_grow_into_a_component():
    """Its own mask stays the same, whatever is above the threshold beside it."""
    alone = np.array([[0, 0.9, 0.4, 0, 0.0]])
    both = np.array([[0, 0.9, 0.4, 1, 0.9]])
    component = np.array([[False, True, False, False, False]])
    masks = [level_set(cam, component, 0.5, (1, 5)) for cam in (alone, both)]
    np.testing.assert_array_equal(masks[0].cells, masks[1].cells)


def test_peak_hardly_above_the_threshold_keeps_its_cell():
    cam = np.zeros((3, 3))
    cam[1, 1] = 0.5 + 1e-9
    mask = level_set(cam, cam > 0, 0.5, (3, 3))
    assert mask.cell_size == (1, 1)
    assert drawn(mask.over_image((3, 3))) == ["...", ".#.", "..."]


def test_paper_gives_each_component_its_own_mask():
    cam = np.zeros((5, 12))
    cam[1:4, 1:4] = 1
    cam[1:4, 8:11] = 1
    found = box_candidates(cam, [0.5], "paper", 10, (50, 120), with_masks=True)
    for start, mask in zip((10, 80), found.masks, strict=True):
        columns = np.flatnonzero(mask.over_image((50, 120)).any(axis=0))
        assert (columns[0], columns[-1] + 1) == (start, start + 30)


def test_release_takes_all_within_the_slice():
    """An L that encloses a dot by its bounding slice: the dot counts in box and mask."""
    cam = np.zeros((6, 6))
    cam[0:5, 0] = cam[4, 0:5] = 1
    cam[1, 3] = 1
    found = box_candidates(cam, [0.5], "release", 10, (60, 60), with_masks=True)
    assert len(found.masks) == 1
    mask = found.masks[0].over_image((60, 60))
    assert mask[15, 35]
    assert not mask[15, 22]
    assert not mask[55, 55]


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_extent_keeps_the_holes_of_a_component(tau):
    """A frame of one cell around a hole of three; the box encloses it, the mask has the hole."""
    cam = np.zeros((9, 9))
    cam[2:7, 2:7] = 1
    cam[3:6, 3:6] = 0
    found = box_candidates(cam, [tau], "extent", 10, (90, 90), with_masks=True)
    (mask,) = (own.over_image((90, 90)) for own in found.masks)
    assert mask[25, 45]
    assert not mask[45, 45]
    rows = np.flatnonzero(mask.any(axis=1))
    y1, y2 = found.boxes[0, [1, 3]]
    assert abs(rows[0] - y1) <= 1
    assert abs(rows[-1] + 1 - y2) <= 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_boxes_are_the_same_with_masks(rule, seed):
    """And a mask lies within the enclosing rectangle where that is what the box is."""
    cam, size_hw = smooth_map(seed), (147, 200)
    arguments = (cam, None, rule, (147 / 10.5, 200 / 13), size_hw)
    alone = box_candidates(*arguments)
    found = box_candidates(*arguments, with_masks=True)
    assert alone.masks is None
    assert len(found.boxes) > 1
    np.testing.assert_array_equal(found.boxes, alone.boxes)
    np.testing.assert_array_equal(found.thresholds, alone.thresholds)
    for box, mask in zip(found.boxes, found.masks, strict=True):
        pixels = mask.over_image(size_hw)
        assert pixels.shape == size_hw
        assert pixels.any()
        if rule == "extent":
            rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
            extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert abs(extent - box).max() <= 1


@pytest.mark.parametrize("rule", RULES)
def test_constant_map_has_no_mask(rule):
    assert box_candidates(np.ones((4, 5)), rule=rule, with_masks=True).masks == []
