"""Boxes of a store and detections merged, worked out by hand. The image has 100 x 100 px."""

import numpy as np
import pytest

from dap.self_training import MergeRule, merged_rows
from dap.self_training.box_detector import Detections

SIZE_HW = (100, 100)
LARGE, SMALL, OTHER = [10, 10, 50, 50], [10, 10, 30, 30], [60, 60, 90, 90]
FOUND = [10, 10, 50, 40]  # IoU .75 with LARGE, 1 / 3 with SMALL, 0 with OTHER
SECOND = [60, 63, 90, 90]  # IoU .9 with OTHER


def detections(*rows):
    """Rows of x1, y1, x2, y2, score, label."""
    values = np.array(rows, float).reshape(-1, 6)
    return Detections(values[:, :4], values[:, 4], values[:, 5].astype(int))


def merge(boxes, found, **rule):
    """Rows of x1, y1, x2, y2, label, threshold."""
    values = np.array(boxes, float)
    given = values[:, :4], values[:, 4].astype(int), values[:, 5].astype(int)
    before = [each.copy() for each in (*given, *found)]
    rows = merged_rows(*given, found, SIZE_HW, MergeRule(**rule))
    after = [*given, *found]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    return rows


STORED = [[*LARGE, 7, 0], [*SMALL, 7, 1], [*OTHER, 7, 1]]


def test_best_detection_takes_the_place_of_the_boxes_it_overlaps():
    found = detections([*SECOND, 0.3, 7], [*FOUND, 0.4, 7])
    rows = merge(STORED, found, min_score=0.5, max_overlap=0.5)
    assert rows == [[*FOUND, 7, 255], [*SMALL, 7, 1], [*OTHER, 7, 1]]


@pytest.mark.parametrize(
    ("max_overlap", "kept"),
    [
        (0.0, [2]),
        (0.33, [2]),
        (0.34, [1, 2]),
        (0.75, [0, 1, 2]),  # equal is not above
        (1.0, [0, 1, 2]),
    ],
)
def test_overlap_up_to_which_boxes_stay(max_overlap, kept):
    rows = merge(STORED, detections([*FOUND, 0.9, 7]), min_score=1, max_overlap=max_overlap)
    assert rows == [[*FOUND, 7, 255], *(STORED[i] for i in kept)]


@pytest.mark.parametrize(("min_score", "count"), [(0.29, 2), (0.3, 2), (0.31, 1), (1.0, 1)])
def test_sure_detections_stay_beside_the_best(min_score, count):
    """By falling score; equal is sure."""
    found = detections([*SECOND, 0.3, 7], [*FOUND, 0.4, 7])
    rows = merge(STORED, found, min_score=min_score, max_overlap=0.5)
    detected = [[*FOUND, 7, 255], [*SECOND, 7, 255]][:count]
    assert rows == [*detected, *(STORED[1:] if count == 1 else STORED[1:2])]


@pytest.mark.parametrize("found", [detections(), detections([*FOUND, 0.9, 3], [*FOUND, 0.9, -1])])
def test_without_a_detection_of_its_class_an_image_keeps_its_boxes(found):
    assert merge(STORED, found) == STORED


def test_classes_are_merged_each_by_itself():
    """A detection of one class covers no box of another; one class has no detection."""
    stored = [[*LARGE, 7, 0], [*LARGE, 2, 0], [*SMALL, 4, 1]]
    rows = merge(stored, detections([*FOUND, 0.9, 7], [*SECOND, 0.2, 2]), max_overlap=0.5)
    assert rows == [[*SECOND, 2, 255], [*LARGE, 2, 0], [*SMALL, 4, 1], [*FOUND, 7, 255]]


def test_detections_are_clipped_and_rounded_and_slivers_left_out():
    """The best is .5 px wide within the image, the next is cut at the border."""
    found = detections([-9, 5, 0.5, 50, 0.9, 7], [70.126, -4, 130, 20.333, 0.8, 7])
    rows = merge(STORED, found, min_score=0.5, max_overlap=0.5)
    assert rows == [[70.13, 0, 100, 20.33, 7, 255], *STORED]


def test_slivers_alone_are_no_detection():
    assert merge(STORED, detections([-9, 5, 0.5, 50, 0.9, 7]), max_overlap=0) == STORED


@pytest.mark.parametrize("name", ["min_score", "max_overlap"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name}: expected a value in \[0, 1\]"):
        MergeRule(**{name: value})
