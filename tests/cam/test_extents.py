"""Boxes by extent: values worked out by hand on small maps, and properties."""

import numpy as np
import pytest

from dap.cam import OTSU_MULTIPLES, THRESHOLDS, box_candidates, boxes_from_cam, default_thresholds
from dap.cam.extents import ENLARGED_SIDE, components, enlarged, extent_boxes, otsu_threshold
from dap.cam.rules import checked_thresholds, threshold_name


def smooth_map(seed, shape=(18, 24)):
    """A sum of three Gaussian blobs, some of them cut off by the border."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    cam = np.zeros(shape)
    for _ in range(3):
        cy, cx = rng.random(2) * shape
        sy, sx = 1 + rng.random(2) * 4
        cam += rng.random() * np.exp(-(((y - cy) / sy) ** 2) - ((x - cx) / sx) ** 2)
    return cam


def same_boxes(boxes, expected, tolerance):
    """Whether two sets of boxes are equal, in any order."""
    assert boxes.shape == expected.shape
    distance = abs(boxes[:, None] - expected[None]).max(axis=2)
    assert distance.min(axis=0).max() <= tolerance
    assert distance.min(axis=1).max() <= tolerance


@pytest.mark.parametrize(
    ("rows", "enclosed"),
    [
        (["1"], 1),
        (["111"], 3),
        (["11", "11"], 4),
        (["111", "101", "111"], 9),  # the hole counts
        (["110", "011"], 4),
        (["100", "010", "001"], 3),  # connected by corners
        (["1111", "1000", "1000"], 6),
    ],
)
def test_outlines_enclose_as_many_cells_as_can_be_counted(rows, enclosed):
    cam = np.array([[float(c) for c in row] for row in rows], np.float32)
    for padded in (cam, np.pad(cam, 2)):
        boxes, cells, index, _ = components(padded, np.array([0.5]))
        assert cells.tolist() == [enclosed]
        assert index.tolist() == [0]
        start = 2 if padded is not cam else 0
        height, width = cam.shape
        assert boxes.tolist() == [[start, start, start + width, start + height]]


def test_components_of_each_threshold_stand_from_the_top_down():
    cam = np.array([[0, 0, 0, 0.9], [0.5, 0, 0, 0], [0, 0, 0.9, 0.9]], np.float32)
    boxes, cells, index, _ = components(cam, np.array([0.4, 0.8]))
    assert index.tolist() == [0, 0, 0, 1, 1]
    assert cells.tolist() == [1, 1, 2, 1, 2]
    assert boxes.tolist() == [[3, 0, 4, 1], [0, 1, 1, 2], [2, 2, 4, 3], [3, 0, 4, 1], [2, 2, 4, 3]]


def test_otsu_parts_two_levels_between_them():
    cam = np.array([[0.2, 0.2, 0.2], [0.2, 0.8, 0.8]], np.float32)
    assert 0.2 < otsu_threshold(cam) < 0.8
    # The variance between the groups, w0 w1 (m1 - m0)², is 3/16 (.4667)² = .0408 if 0 is cut off,
    # 1/4 (.6)² = .09 in the middle, and 3/16 (.7333)² = .1008 if .9 is cut off.
    assert 0.4 < otsu_threshold(np.array([[0, 0.1, 0.4, 0.9]], np.float32)) < 0.9


def test_bilinear_edges_of_a_block_are_where_the_map_crosses_the_threshold():
    """A row of cells 0 0 1 1 1 0 0, enlarged by 18: from centre 1.5 to 2.5 the map rises 0 → 1.

    Fine cell k has its centre at (k + .5) / 18 cells. At .25 the map is crossed at 1.75 cells: the
    first fine centre above it is (31 + .5) / 18 = 1.75 itself, where the map is .25 and not above
    it; so the box begins at fine cell 32. It ends as far from the other end, at 126 - 32.
    """
    cam = np.array([[0, 0, 1, 1, 1, 0, 0]], float)
    large, factor = enlarged(cam, (1, 7))
    assert factor == ENLARGED_SIDE // 7 == 18
    assert large.shape == (18, 126)
    boxes, *_ = components(large, np.array([0.2501]))
    assert boxes.tolist() == [[32, 0, 94, 18]]
    otsu = otsu_threshold(large)
    found, index = extent_boxes(cam, np.array([0.2501 / otsu]), (1, 7))[:2]
    np.testing.assert_allclose(found, [[32 / 18, 0, 94 / 18, 1]])
    assert index.tolist() == [0]


def test_box_encloses_the_block_at_its_half_height():
    """A block of 4 x 3 cells on zeros is crossed at half its height by its own edges."""
    cam = np.zeros((9, 11))
    cam[2:5, 3:7] = 1
    otsu = otsu_threshold(enlarged(cam, (9, 11))[0])
    boxes, scores = boxes_from_cam(cam, [0.5 / otsu], rule="extent", cell_size=(10, 20))
    np.testing.assert_allclose(boxes, [[60, 20, 140, 50]], atol=20 / 11)
    np.testing.assert_allclose(scores, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


@pytest.mark.parametrize("seed", range(5))
def test_mirrored_and_turned_maps_give_mirrored_and_turned_boxes(seed):
    cam = smooth_map(seed)
    boxes, _ = boxes_from_cam(cam, rule="extent", cell_size=(8, 16))
    mirrored, _ = boxes_from_cam(cam[:, ::-1], rule="extent", cell_size=(8, 16))
    mirrored[:, [0, 2]] = 24 * 16 - mirrored[:, [2, 0]]
    same_boxes(mirrored, boxes, 1e-9)
    turned, _ = boxes_from_cam(cam.T, rule="extent", cell_size=(16, 8))
    same_boxes(turned[:, [1, 0, 3, 2]], boxes, 1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_scale_and_offset_of_the_map_change_nothing(seed):
    cam = smooth_map(seed)
    expected, _ = boxes_from_cam(cam, rule="extent", cell_size=10)
    found, _ = boxes_from_cam(-3 + 7 * cam, rule="extent", cell_size=10)
    same_boxes(found, expected, 10 / 5 + 1e-9)  # one fine cell, where rounding meets a threshold


@pytest.mark.parametrize("seed", range(5))
def test_higher_multiples_lie_inside_lower_ones(seed):
    found = box_candidates(smooth_map(seed), (0.4, 0.8), "extent", 32)
    low, high = (found.boxes[found.thresholds == i] for i in (0, 1))
    for box in high:  # in some component of the lower threshold, which may be too small to be kept
        inside = (box[:2] >= low[:, :2]).all(axis=1) & (box[2:] <= low[:, 2:]).all(axis=1)
        assert inside.any() or len(low) < len(high)


def test_cells_beyond_the_image_take_no_part():
    """The padded half of the last column holds the only high values."""
    cam = smooth_map(1, (6, 8))
    cam[:, -1] = 0
    full, _ = boxes_from_cam(cam, rule="extent", cell_size=10, image_size_hw=(60, 80))
    assert (full[:, 2:] <= [80, 60]).all()
    large, factor = enlarged(cam, (6, 7.5))
    assert factor == 16
    assert large.shape == (96, 120)
    cut, _ = boxes_from_cam(cam, rule="extent", cell_size=10, image_size_hw=(33, 41))
    assert len(cut)
    assert (cut[:, :2] >= 0).all()
    assert (cut[:, 2:] <= [41, 33]).all()


def test_a_large_map_is_not_enlarged():
    large, factor = enlarged(smooth_map(0, (150, 200)), (150, 200))
    assert factor == 1
    assert large.shape == (150, 200)


@pytest.mark.parametrize("shape", [(1, 1), (3, 4)])
def test_constant_map_has_no_box(shape):
    boxes, scores = boxes_from_cam(np.full(shape, 0.3), rule="extent")
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


def test_no_component_above_a_multiple_that_no_cell_reaches():
    boxes, _ = boxes_from_cam(smooth_map(2), [50.0], rule="extent")
    assert boxes.shape == (0, 4)
    found = box_candidates(smooth_map(2), [0.5, 50.0], "extent")
    assert set(found.thresholds.tolist()) == {0}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_map_that_is_not_finite_is_refused(value):
    cam = smooth_map(0)
    cam[3, 4] = value
    with pytest.raises(ValueError, match="1 of 432 cells are NaN or infinite"):
        boxes_from_cam(cam, rule="extent")


def test_input_is_not_changed():
    cam = smooth_map(0).astype(np.float32)
    before = cam.copy()
    boxes_from_cam(cam, rule="extent")
    np.testing.assert_array_equal(cam, before)


def test_thresholds_by_rule():
    assert default_thresholds("extent") == OTSU_MULTIPLES
    assert default_thresholds("paper") == default_thresholds("release") == THRESHOLDS
    assert checked_thresholds(None, "extent").tolist() == list(OTSU_MULTIPLES)
    assert checked_thresholds([1.7], "extent").tolist() == [1.7]
    for taus in ([0.0], [-0.3], [np.inf], [np.nan], []):
        with pytest.raises(ValueError, match="positive multiples of Otsu's threshold"):
            checked_thresholds(taus, "extent")
    for taus in ([1.0], [-0.3], [np.nan], []):
        with pytest.raises(ValueError, match=r"values in \[0, 1\) under rule='paper'"):
            checked_thresholds(taus, "paper")
    with pytest.raises(ValueError, match="rule: expected one of"):
        checked_thresholds(None, "otsu")
    assert threshold_name(0.3, "extent") == "0.3 x Otsu"
    assert threshold_name(0.3, "paper") == "τ 0.3"
