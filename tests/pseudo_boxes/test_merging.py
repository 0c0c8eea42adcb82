"""Boxes of one image: candidates of each threshold, rounding, merging, and storing."""

import numpy as np
import pytest

from dap.cam.boxes import Candidates, box_candidates
from dap.pseudo_boxes import PseudoBoxSettings
from dap.pseudo_boxes.records import merged_boxes, rounded
from dap.store.shard import Shard, encode_shard
from tests.support.maps import clouds

TAUS = (0.2, 0.3, 0.4, 0.5)


@pytest.mark.parametrize("rule", ["paper", "release", "extent"])
def test_candidates_of_a_threshold_do_not_depend_on_the_others(rule):
    """To the last bit: what is rounded at a tie would differ."""
    for seed in range(50):
        cam = clouds(seed, (23 + seed, 41))[..., 0] / 255
        found = box_candidates(cam, TAUS, rule, 7.3)
        for i, tau in enumerate(TAUS):
            alone = box_candidates(cam, (tau,), rule, 7.3).boxes
            assert np.array_equal(alone, found.boxes[found.thresholds == i]), (seed, tau)


def test_box_comes_back_from_a_shard_to_the_last_bit(tmp_path):
    """Hundredths of a pixel in float32 up to 131,072 pixels."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0, [[[40]], [[600]], [[120_000]]], (3, 20_000, 2)).reshape(-1, 2)
    end = start + rng.uniform(0.01, 6_000, start.shape)
    boxes = np.round(np.concatenate([start, end], axis=1), 2)
    rows = [[*box, 0, 0] for box in boxes.tolist()]
    path = tmp_path / "x.arrow"
    path.write_bytes(encode_shard([{"id": 1, "file_name": "x", "boxes": rows}], {}))
    assert np.array_equal(Shard(path).boxes_of(0)[0], boxes)


def test_rounding_drops_what_has_no_extent():
    boxes = np.array([[1.004, 2.006, 5.125, 6.135], [9.996, 0, 10, 4], [0, 3.994, 7, 3.9949]])
    found = rounded(Candidates(boxes, np.array([0, 1, 1])))
    assert found.boxes.tolist() == [[1.0, 2.01, 5.12, 6.14]]
    assert found.thresholds.tolist() == [0]


@pytest.mark.parametrize(
    ("nms_iou", "rule", "kept"),
    [
        (0.8, "paper", [1, 0]),
        (0.79, "paper", [1]),
        (0.8, "release", [1]),
        (None, "release", [1, 0]),
    ],
)
def test_merging_by_hand(nms_iou, rule, kept):
    """10 x 8 in 10 x 10: IoU .8, not above .8; with a pixel more 99 / 121 = .818, at least .8."""
    boxes = np.array([[0.0, 0, 10, 8], [0, 0, 10, 10]])
    settings = PseudoBoxSettings(thresholds=(0.2, 0.4), nms_iou=nms_iou, rule=rule)
    record = merged_boxes([(4, Candidates(boxes, np.array([1, 0])))], settings)
    assert record["boxes"] == [[*boxes[i].tolist(), 4, 1 - i] for i in kept]


def test_boxes_of_one_class_do_not_suppress_those_of_another():
    boxes = np.array([[0.0, 0, 10, 10]])
    found = [(label, Candidates(boxes, np.array([0]))) for label in (2, 5)]
    record = merged_boxes(found, PseudoBoxSettings(thresholds=(0.2,), nms_iou=0.5))
    assert [box[4] for box in record["boxes"]] == [2, 5]
