"""Boxes of hand-drawn maps, worked out by hand."""

import ast
import sys
import timeit
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

import dap.cam
from dap.cam import RULES, box_candidates, boxes_from_cam, nms_larger_first
from tests.support.maps import assert_same_set, drawn


def block(cx, cy, width, height):
    """Box of a uniform block of width x height cells around (cx, cy).

    Eq. 5 takes each cell as a point in its centre: n points one cell apart have the variance
    (n**2 - 1) / 12, so that n cells give sqrt(n**2 - 1), not n. The 1/12 that is missing is the
    variance inside a cell.
    """
    w, h = max(1, sqrt(width**2 - 1)), max(1, sqrt(height**2 - 1))
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


@pytest.mark.parametrize(("height", "width"), [(3, 3), (2, 5), (4, 1), (1, 1), (6, 2)])
def test_uniform_block_gives_root_of_n_squared_minus_one(height, width):
    cam = np.zeros((9, 11))
    cam[2 : 2 + height, 3 : 3 + width] = 1
    boxes, scores = boxes_from_cam(cam, thresholds=[0.5])
    expected = block(3 + width / 2, 2 + height / 2, width, height)
    np.testing.assert_allclose(boxes, [expected], atol=1e-12)
    x1, y1, x2, y2 = expected
    np.testing.assert_allclose(scores, [(x2 - x1) * (y2 - y1)])


def test_two_blobs_and_wide_map():
    cam = drawn("...........", ".###...###.", ".###...###.", ".###...###.", "...........")
    boxes, _ = boxes_from_cam(cam)
    assert_same_set(boxes, [block(2.5, 2.5, 3, 3), block(8.5, 2.5, 3, 3)])


def test_blobs_that_touch_by_an_edge_are_one_and_by_a_corner_two():
    by_edge = drawn("......", ".####.", ".####.", "......")
    np.testing.assert_allclose(boxes_from_cam(by_edge)[0], [block(3, 2, 4, 2)])
    by_corner = drawn("......", ".##...", ".##...", "...##.", "...##.")
    boxes, _ = boxes_from_cam(by_corner)
    assert_same_set(boxes, [block(2, 2, 2, 2), block(4, 4, 2, 2)])


def test_blob_at_the_border_stays_inside():
    cam = drawn("###..", "###..", "###..", ".....")
    boxes, _ = boxes_from_cam(cam)
    np.testing.assert_allclose(boxes, [block(1.5, 1.5, 3, 3)])
    assert (boxes >= 0).all()


def test_ring_overshoots_and_is_clipped_to_the_map():
    """Columns of a 5x5 ring hold 5, 2, 2, 2, 5 cells: variance 44/16, so w = sqrt(33) > 5."""
    ring = drawn("#####", "#...#", "#...#", "#...#", "#####")
    half = sqrt(33) / 2
    inside = np.pad(ring, 2)
    np.testing.assert_allclose(
        boxes_from_cam(inside)[0], [[4.5 - half, 4.5 - half, 4.5 + half, 4.5 + half]]
    )
    np.testing.assert_allclose(boxes_from_cam(ring)[0], [[0, 0, 5, 5]])


def test_elongated_row_is_one_cell_high():
    cam = drawn("........", ".#####..", "........")
    half = sqrt(24) / 2
    np.testing.assert_allclose(boxes_from_cam(cam)[0], [[3.5 - half, 1, 3.5 + half, 2]])


def test_weights_are_the_map_itself():
    """Two cells of 1 and .6: mean .875, variance .234375, w = sqrt(12 * .234375)."""
    cam = drawn("#6...", ".....")
    half = sqrt(2.8125) / 2
    boxes, _ = boxes_from_cam(cam, thresholds=[0.5])
    np.testing.assert_allclose(boxes, [[0.875 - half, 0, 0.875 + half, 1]])


def test_map_is_normalised_first():
    cam = drawn("#6...", ".....")
    expected, _ = boxes_from_cam(cam)
    shifted, _ = boxes_from_cam(-3 + 7 * cam)
    np.testing.assert_allclose(shifted, expected, atol=1e-12)


def test_threshold_is_strict():
    cam = drawn(".....", ".5.#.", ".....")
    boxes, _ = boxes_from_cam(cam, thresholds=[0.5])
    np.testing.assert_allclose(boxes, [[3, 1, 4, 2]])
    boxes, _ = boxes_from_cam(cam, thresholds=[0.4999])
    assert len(boxes) == 2


def test_half_area_filter_keeps_exactly_half():
    cam = drawn("##...##", "##.....", ".......", "....#..")
    boxes, _ = boxes_from_cam(cam)
    assert_same_set(boxes, [block(1, 1, 2, 2), block(6, 0.5, 2, 1)])


def test_cell_size_and_image_size_scale_and_clip():
    cam = drawn("....", "...#", "....")
    boxes, _ = boxes_from_cam(cam, cell_size=(10, 20), image_size_hw=(30, 75))
    np.testing.assert_allclose(boxes, [[60, 10, 75, 20]])
    boxes, _ = boxes_from_cam(cam, cell_size=32, image_size_hw=(96, 128))
    np.testing.assert_allclose(boxes, [[96, 32, 128, 64]])


def test_all_thresholds_are_merged_larger_first():
    cam = drawn("3333333", "3#####3", "3#####3", "3333333")
    boxes, scores = boxes_from_cam(cam, thresholds=[0.2, 0.5])
    assert list(scores) == sorted(scores, reverse=True)
    boxes, _ = boxes_from_cam(np.pad(cam, 1), thresholds=[0.2, 0.5], nms_iou=None)
    assert len(boxes) == 2
    np.testing.assert_allclose(boxes[1], block(4.5, 3, 5, 2))


@pytest.mark.parametrize("seed", range(6))
def test_mirrored_map_gives_mirrored_boxes(seed):
    cam = np.random.default_rng(seed).random((9, 13))
    boxes, _ = boxes_from_cam(cam, [0.5, 0.7], cell_size=8)
    mirrored, _ = boxes_from_cam(cam[:, ::-1], [0.5, 0.7], cell_size=8)
    mirrored[:, [0, 2]] = 13 * 8 - mirrored[:, [2, 0]]
    assert_same_set(mirrored, boxes, 1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_input_is_not_changed_and_boxes_lie_in_the_image(rule):
    cam = np.random.default_rng(3).random((18, 24)).astype(np.float32)
    before = cam.copy()
    boxes, scores = boxes_from_cam(cam, rule=rule, cell_size=20, image_size_hw=(350, 470))
    np.testing.assert_array_equal(cam, before)
    assert boxes.dtype == np.float64
    assert len(boxes) == len(scores) > 0
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 470).all()
    assert (boxes[:, 3] <= 350).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("value", [0.0, 0.5, -2.0])
def test_constant_map_has_no_box(rule, value):
    boxes, scores = boxes_from_cam(np.full((5, 6), value), rule=rule)
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


@pytest.mark.parametrize("rule", RULES)
def test_rounding_noise_on_a_constant_map_has_no_box(rule):
    for noisy in ([[0.1 + 0.2, 0.3], [0.3, 0.3]], [[7.0, 7.000001], [7.0, 7.0]]):
        assert len(boxes_from_cam(np.array(noisy), rule=rule)[0]) == 0
    assert len(boxes_from_cam(np.array([[1.0, 1.001], [1.0, 1.0]]))[0]) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.5e308])
def test_map_that_is_not_finite_is_refused(bad):
    cam = np.eye(4)
    cam[1, 2] = bad
    with pytest.raises(ValueError, match="1 of 16 cells are NaN or infinite"):
        boxes_from_cam(cam)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"cam": np.zeros((2, 3, 4))}, r"cam: .*found shape \(2, 3, 4\)"),
        ({"cam": np.zeros((0, 4))}, "cam: "),
        ({"thresholds": []}, "thresholds: "),
        ({"thresholds": [0.2, 1.0]}, "thresholds: "),
        ({"thresholds": [float("nan")]}, "thresholds: "),
        ({"nms_iou": 0.0}, "nms_iou: "),
        ({"nms_iou": 1.5}, "nms_iou: "),
        ({"rule": "papre"}, "rule: "),
        ({"cell_size": 0}, "cell_size: "),
        ({"image_size_hw": (0, 4)}, "image_size_hw: "),
        ({"image_size_hw": np.array([4, np.nan])}, "image_size_hw: "),
        ({"cell_size": (1, -2)}, "cell_size: "),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        boxes_from_cam(**{"cam": np.eye(4), **kwargs})


def test_release_weights_and_minimum_size():
    """Weights 1.22 and .82 at .5 and 1.5; clipped to W - 1 = 4."""
    cam = drawn("#6...", ".....")
    boxes = box_candidates(cam, [0.5], "release").boxes
    mean = (1.22 * 0.5 + 0.82 * 1.5) / 2.04
    half = sqrt(12 * (1.22 * (0.5 - mean) ** 2 + 0.82 * (1.5 - mean) ** 2) / 2.04) / 2
    np.testing.assert_allclose(boxes, [[mean - half, 0, mean + half, 1]])
    corner = drawn("....", "...#")
    np.testing.assert_allclose(
        box_candidates(corner, [0.5], "release", 10).boxes, [[30, 10, 39, 19]]
    )


def test_release_judges_by_the_slice_and_counts_what_lies_in_it():
    """A diagonal staircase of 5 cells has a slice of 3 x 3 cells.

    The cell in the corner of that slice is a component of its own. It is dropped, since its slice
    has 1 cell against 9, but it counts in the moments of the staircase's slice.
    """
    cam = drawn("#.#..", "##...", ".##..", ".....")
    boxes = box_candidates(cam, [0.5], "release", 1.0, (20, 20)).boxes
    columns, rows = np.array([2, 2, 2]), np.array([2, 2, 2])
    centres = np.array([0.5, 1.5, 2.5])
    x, y = (columns @ centres / 6, rows @ centres / 6)
    w = sqrt(12 * (columns @ (centres - x) ** 2) / 6)
    np.testing.assert_allclose(boxes, [[x - w / 2, y - w / 2, x + w / 2, y + w / 2]])


def test_release_takes_four_components_at_most():
    cam = drawn("#.#.#.", "......", "#.#.#.")
    assert len(box_candidates(cam, [0.5], "release", 10).boxes) == 4
    assert len(box_candidates(cam, [0.5], "paper", 10).boxes) == 6


def test_release_takes_the_last_of_equal_slices_in_scan_order():
    """Of six cells those of the lower row, from its end, and the last of the upper row."""
    cam = drawn("#.#.#", ".....", "#.#.#", ".....", ".....")
    boxes = box_candidates(cam, [0.5], "release", 10).boxes
    expected = [[40, 20, 49, 30], [20, 20, 30, 30], [0, 20, 10, 30], [40, 0, 49, 10]]
    np.testing.assert_allclose(boxes, expected, atol=1e-12)
    diagonal = drawn("#....", ".#...", "..#..", "...#.", "....#")
    boxes = box_candidates(diagonal, [0.5], "release", 10).boxes
    corners = [(40, 49), (30, 40), (20, 30), (10, 20)]  # the last is clipped to W - 1
    np.testing.assert_allclose(boxes, [[a, a, b, b] for a, b in corners], atol=1e-12)


def test_release_orders_by_area_before_it_orders_by_scan():
    """Slices of 4, 6, 4, 3 and 4 cells; the one of 3 is the fifth. Two thresholds."""
    cam = drawn("##.###.##", "##.###.##", ".........", "###.####.")
    found = box_candidates(cam, [0.2, 0.5], "release", 1, (100, 100))
    row = [6 - sqrt(15) / 2, 3, 6 + sqrt(15) / 2, 4]
    expected = [block(4.5, 1, 3, 2), row, block(8, 1, 2, 2), block(1, 1, 2, 2)]
    expected = np.maximum(expected, 0)
    np.testing.assert_allclose(found.boxes, [*expected, *expected], atol=1e-12)
    assert found.thresholds.tolist() == [0] * 4 + [1] * 4


def test_release_keeps_the_last_of_equal_boxes_that_overlap():
    """Two cells that touch at a corner: with one pixel more each way, the IoU is 1 / 7."""
    cam = drawn(".....", ".#...", "..#..", ".....", ".....")
    args = {"thresholds": [0.5], "rule": "release"}
    boxes, _ = boxes_from_cam(cam, nms_iou=0.14, **args)
    np.testing.assert_allclose(boxes, [[2, 2, 3, 3]])
    boxes, _ = boxes_from_cam(cam, nms_iou=0.15, **args)
    np.testing.assert_allclose(boxes, [[2, 2, 3, 3], [1, 1, 2, 2]])


@pytest.mark.parametrize("rule", RULES)
def test_nms_keeps_the_first_of_equal_boxes(rule):
    equal = np.array([[0, 0, 10, 8], [1, 0, 11, 8], [40, 40, 48, 50]], float)
    assert nms_larger_first(equal, 0.5, rule)[0].tolist() == [0, 2]
    assert nms_larger_first(equal[[1, 0, 2]], 0.5, rule)[0].tolist() == [0, 2]


def test_release_ranks_by_the_area_without_the_pixel_more():
    """400 > 399.5 square pixels; with one pixel more each way 441 < 441.48. Their IoU is .678."""
    boxes = np.array([[0, 0, 25, 15.98], [0, 0, 20, 20]])
    keep, areas = nms_larger_first(boxes, 0.6, "release")
    assert keep.tolist() == [1]
    assert areas.tolist() == [400]


def test_release_does_not_normalise():
    cam = 0.4 * drawn("....", ".##.", "....")
    assert len(box_candidates(cam, [0.5], "release").boxes) == 0
    assert len(box_candidates(cam, [0.3], "release").boxes) == 1


def test_nms_at_exactly_the_threshold():
    half_open = np.array([[0, 0, 10, 8], [0, 0, 10, 10]], float)
    keep, areas = nms_larger_first(half_open, 0.8)
    assert keep.tolist() == [1, 0]
    assert areas.tolist() == [100, 80]
    keep, _ = nms_larger_first(half_open, 0.79)
    assert keep.tolist() == [1]
    inclusive = np.array([[0, 0, 9, 7], [0, 0, 9, 9]], float)
    keep, areas = nms_larger_first(inclusive, 0.8, "release")
    assert keep.tolist() == [1]
    assert areas.tolist() == [81]


def test_nms_suppressed_box_suppresses_nothing():
    chain = np.array([[0, 0, 10, 10], [2, 0, 11, 10], [4, 0, 12, 10]], float)
    keep, _ = nms_larger_first(chain, 0.5)
    assert keep.tolist() == [0, 2]


def test_one_map_takes_well_under_a_millisecond():
    """Takes the fastest of many runs, so that other work on the machine does not matter."""
    cam = np.random.default_rng(0).random((18, 24))
    cam = np.add.accumulate(np.add.accumulate(cam - 0.5, axis=0), axis=1)  # smooth
    fastest = min(timeit.repeat(lambda: boxes_from_cam(cam), number=1, repeat=300))
    assert fastest < 1e-3


def test_cam_imports_no_mm_package():
    """``dap.cam`` imports torch, numpy and cv2 only."""
    imported = set()
    for path in Path(dap.cam.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).split(".")[0])
    assert imported - sys.stdlib_module_names == {"torch", "numpy", "cv2"}
