import numpy as np
import pytest
import torch


def test_nms_keeps_the_better_of_two_boxes_above_the_threshold(mmcv_ops):
    """The first two overlap by 50 of 150 cells: IoU 1/3."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [30, 30, 40, 40]])
    scores = torch.tensor([0.5, 0.9, 0.7])
    assert mmcv_ops.nms(boxes, scores, 0.3)[1].tolist() == [1, 2]
    dets, kept = mmcv_ops.nms(boxes, scores, 0.4)
    assert kept.tolist() == [1, 2, 0]
    assert dets[:, 4].tolist() == pytest.approx([0.9, 0.7, 0.5])


def test_nms_with_offset_1_counts_the_last_pixel(mmcv_ops):
    """Boxes of 10 x 10 and 10 x 10 pixels with 5 columns in common: 50 / 150, without: 36 / 126."""
    boxes = torch.tensor([[0.0, 0, 9, 9], [5, 0, 14, 9]])
    scores = torch.tensor([0.9, 0.5])
    assert len(mmcv_ops.nms(boxes, scores, 0.3, offset=1)[1]) == 1
    assert len(mmcv_ops.nms(boxes, scores, 0.3, offset=0)[1]) == 2


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
def test_nms_keeps_a_box_whose_overlap_equals_the_threshold(ext, threshold):
    """A box of 10 cells and its part of 1 to 9 cells: the IoU in float32 equals the threshold."""
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, round(10 * threshold), 1]])
    assert len(ext.nms(boxes, torch.tensor([0.9, 0.5]), threshold, 0)) == 2


def test_nms_of_equal_boxes_and_scores_keeps_the_first(ext):
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
    assert ext.nms(boxes, torch.tensor([0.5, 0.5, 0.5]), 0.5, 0).tolist() == [0]


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_of_no_box_and_of_one(ext, offset):
    empty = ext.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, offset)
    assert empty.shape == (0,)
    assert empty.dtype == torch.int64
    assert ext.nms(torch.tensor([[1.0, 2, 3, 4]]), torch.ones(1), 0.5, offset).tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_nms_takes_other_floats(ext, dtype):
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40]], dtype=dtype)
    assert ext.nms(boxes, torch.tensor([0.5, 0.75, 0.25], dtype=dtype), 0.5, 0).tolist() == [1, 2]


def test_nms_leaves_its_input(ext):
    boxes = torch.tensor([[0.0, 0, 9, 9], [5, 0, 14, 9]])
    before = boxes.clone()
    ext.nms(boxes, torch.tensor([0.9, 0.5]), 0.3, 1)
    assert torch.equal(boxes, before)


def test_batched_nms_compares_within_classes_only(mmcv_ops):
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
    scores = torch.tensor([0.9, 0.8, 0.7])
    nms = {"type": "nms", "iou_threshold": 0.5}
    kept = mmcv_ops.batched_nms(boxes, scores, torch.tensor([0, 1, 0]), nms)[1]
    assert kept.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("method", "factor"), [("naive", 0.0), ("linear", 2 / 3), ("gaussian", np.exp(-2 / 9))]
)
def test_soft_nms_lowers_the_score_of_an_overlapping_box(mmcv_ops, method, factor):
    """IoU 1/3: factors 0, 1 - 1/3, exp(-(1/3)^2 / 0.5)."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [30, 30, 40, 40]])
    scores = torch.tensor([0.5, 0.9, 0.7])
    dets, kept = mmcv_ops.soft_nms(boxes, scores, 0.3, sigma=0.5, min_score=0.01, method=method)
    expected = [0.9, 0.7] + ([0.5 * factor] if factor else [])
    assert dets[:, 4].tolist() == pytest.approx(expected)
    assert kept.tolist() == [1, 2, 0][: len(expected)]
    assert torch.equal(dets[:, :4], boxes[kept])


def loop_soft_nms(boxes, scores, min_score):
    """mmcv's loop: linear, threshold 0; a dropped box is replaced by the last one."""
    rows = [(*b, s, i) for i, (b, s) in enumerate(zip(boxes, scores, strict=True))]
    i = 0
    while i < len(rows):
        best = max(range(i, len(rows)), key=lambda k: (rows[k][4], -k))
        rows[i], rows[best] = rows[best], rows[i]
        j = i + 1
        while j < len(rows):
            a, b = rows[i], rows[j]
            inter = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(
                0, min(a[3], b[3]) - max(a[1], b[1])
            )
            areas = [(r[2] - r[0]) * (r[3] - r[1]) for r in (a, b)]
            score = b[4] * (1 - inter / (sum(areas) - inter))
            rows[j] = (*b[:4], score, b[5])
            if score < min_score:
                rows[j] = rows[-1]
                rows.pop()
            else:
                j += 1
        i += 1
    return [r[5] for r in rows]


def test_soft_nms_drops_boxes_in_the_order_of_the_loop(ext):
    """Scores with many equal values, so that the order of the boxes decides."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        count = int(rng.integers(1, 25))
        corner = rng.integers(0, 8, (count, 2))
        boxes = np.concatenate([corner, corner + rng.integers(1, 8, (count, 2))], 1).astype(float)
        scores = rng.integers(1, 5, count) / 4
        dets = torch.zeros(count, 5, dtype=torch.float64)
        kept = ext.softnms(torch.tensor(boxes), torch.tensor(scores), dets, 0.0, 0.5, 0.2, 1, 0)
        assert kept.tolist() == loop_soft_nms(boxes, scores, 0.2)


def test_nms_match_groups_boxes_with_the_one_that_suppresses_them(mmcv_ops):
    boxes = [[0.0, 0, 10, 10, 0.6], [1, 0, 11, 10, 0.9], [30, 30, 40, 40, 0.7], [2, 0, 12, 10, 0.8]]
    groups = mmcv_ops.nms_match(torch.tensor(boxes), 0.5)
    assert [g.tolist() for g in groups] == [[1, 3, 0], [2]]
    groups = mmcv_ops.nms_match(np.array(boxes, dtype=np.float32), 0.5)
    assert [g.tolist() for g in groups] == [[1, 3, 0], [2]]


@pytest.mark.parametrize(("mode", "offset", "value"), [("iou", 0, 1 / 3), ("iof", 0, 0.5)])
def test_overlaps_of_two_boxes(mmcv_ops, mode, offset, value):
    first, second = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 15, 10]] * 2)
    result = mmcv_ops.bbox_overlaps(first, second, mode, offset=offset)
    assert result.flatten().tolist() == pytest.approx([value] * 2)
    aligned = mmcv_ops.bbox_overlaps(first, second[:1], mode, aligned=True, offset=offset)
    assert aligned.tolist() == pytest.approx([value])


def test_overlaps_with_offset_count_the_last_pixel(mmcv_ops):
    """10 x 10 pixels each, 5 columns in common: 50 / 150."""
    first, second = torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([[5.0, 0, 14, 9]])
    assert mmcv_ops.bbox_overlaps(first, second, offset=1).item() == pytest.approx(1 / 3)
