"""Two views of an image, averages worked out by hand. The image is 60 px high, 100 px wide."""

import pytest
import torch
from mmdet.models import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

from dap.self_training import FlipAveraging

NOTHING = ([], [], [])


class Detector(torch.nn.Module):
    def test_step(self, data):
        return data


def view(boxes, scores, labels, flip=None):
    sample = DetDataSample(
        metainfo={"ori_shape": (60, 100), "flip": flip is not None, "flip_direction": flip}
    )
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.tensor(labels, dtype=torch.long),
    )
    return sample


def fuse(image, mirror, direction="horizontal", **settings):
    samples = [view(*image), view(*mirror, flip=direction)]
    (merged,) = FlipAveraging(Detector(), **settings).merge_preds([samples])
    found = merged.pred_instances
    assert found.bboxes.dtype == found.scores.dtype == torch.float32
    assert found.labels.dtype == torch.long
    assert found.bboxes.shape == (len(found), 4)
    return [
        (label, round(score, 5), [round(corner, 4) for corner in box])
        for label, score, box in zip(
            found.labels.tolist(), found.scores.tolist(), found.bboxes.tolist(), strict=True
        )
    ]


def test_same_box_in_both_views_has_the_mean_score():
    # [10, 30) from the left of 100 px is [70, 90) in the mirror.
    found = fuse(([[10, 5, 30, 40]], [0.8], [2]), ([[70, 5, 90, 40]], [0.4], [2]))
    assert found == [(2, 0.6, [10, 5, 30, 40])]


def test_vertical_mirror():
    # [5, 40) from the top of 60 px is [20, 55) in the mirror.
    found = fuse(([[10, 5, 30, 40]], [0.8], [2]), ([[10, 20, 30, 55]], [0.4], [2]), "vertical")
    assert found == [(2, 0.6, [10, 5, 30, 40])]


def test_corners_are_the_mean_weighted_by_score():
    # x1: (0.9 * 10 + 0.3 * 14) / 1.2 = 11; x2: (0.9 * 50 + 0.3 * 54) / 1.2 = 51
    found = fuse(([[10, 0, 50, 20]], [0.9], [0]), ([[46, 0, 86, 20]], [0.3], [0]))
    assert found == [(0, 0.6, [11, 0, 51, 20])]


def test_box_in_one_view_keeps_half_of_its_score():
    found = fuse(([[0, 0, 20, 20]], [0.9], [0]), ([[0, 30, 20, 60]], [0.7], [0]))
    assert found == [(0, 0.45, [0, 0, 20, 20]), (0, 0.35, [80, 30, 100, 60])]


def test_classes_are_apart():
    boxes = [[10, 5, 30, 40], [10, 5, 30, 40]]
    found = fuse((boxes, [0.9, 0.5], [0, 1]), ([[70, 5, 90, 40]], [0.3], [1]))
    assert found == [(0, 0.45, [10, 5, 30, 40]), (1, 0.4, [10, 5, 30, 40])]


def test_two_boxes_of_one_view_stay_two():
    boxes = [[10, 5, 30, 40], [10, 5, 30, 40]]
    assert fuse((boxes, [0.9, 0.5], [0, 0]), NOTHING) == [
        (0, 0.45, [10, 5, 30, 40]),
        (0, 0.25, [10, 5, 30, 40]),
    ]


def test_two_neighbours_of_both_views_stay_two():
    """All four overlap: IoU of [0, 20) and [5, 25) is 15 / 25. Each takes its own image."""
    image = ([[0, 0, 20, 10], [5, 0, 25, 10]], [0.9, 0.7], [0, 0])
    mirror = ([[80, 0, 100, 10], [75, 0, 95, 10]], [0.5, 0.3], [0, 0])
    assert fuse(image, mirror) == [(0, 0.7, [0, 0, 20, 10]), (0, 0.5, [5, 0, 25, 10])]


def test_neighbour_without_a_partner_is_not_drawn_in():
    """The best takes the mirror's box, which overlaps its neighbour too."""
    image = ([[0, 0, 20, 10], [5, 0, 25, 10]], [0.9, 0.6], [0, 0])
    mirror = ([[80, 0, 100, 10]], [0.7], [0])
    assert fuse(image, mirror) == [(0, 0.8, [0, 0, 20, 10]), (0, 0.3, [5, 0, 25, 10])]


def test_mean_over_four_views():
    """Found in three of four: (0.8 + 0.6 + 0.2) / 4."""
    box, flipped = [10, 5, 30, 40], [70, 5, 90, 40]
    views = [
        view([box], [0.6], [1]),
        view([flipped], [0.8], [1], "horizontal"),
        view([], [], [], "vertical"),
        view([[70, 20, 90, 55]], [0.2], [1], "diagonal"),
    ]
    (merged,) = FlipAveraging(Detector()).merge_preds([views])
    torch.testing.assert_close(merged.pred_instances.scores, torch.tensor([0.4]))
    torch.testing.assert_close(merged.pred_instances.bboxes, torch.tensor([box]).float())


def test_overlap_must_be_above_the_threshold():
    image, mirror = ([[0, 0, 10, 10]], [0.8], [0]), ([[90, 0, 100, 20]], [0.6], [0])
    assert [score for _, score, _ in fuse(image, mirror, iou_threshold=0.5)] == [0.4, 0.3]
    assert [score for _, score, _ in fuse(image, mirror, iou_threshold=0.49)] == [0.7]


@pytest.mark.filterwarnings("error")
def test_boxes_without_area_or_score_are_none():
    boxes = [[10, 5, 10, 40], [50, 5, 70, 5], [0, 0, 9, 9], [20, 20, 40, 40]]
    image = (boxes, [0.9, 0.8, 0.0, 0.6], [0, 0, 0, 0])
    assert fuse(image, ([[91, 0, 100, 9]], [0.0], [0])) == [(0, 0.3, [20, 20, 40, 40])]


def test_nothing_found():
    assert fuse(NOTHING, NOTHING) == []


def test_best_so_many_are_kept():
    image = ([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]], [0.2, 0.6, 0.4], [0, 1, 2])
    assert [label for label, _, _ in fuse(image, NOTHING, max_per_img=2)] == [1, 2]


def test_union_of_mmdet_differs():
    """What the class is there for: DetTTAModel gives the best score of the pile and no half."""
    settings = ConfigDict(nms={"type": "nms", "iou_threshold": 0.5}, max_per_img=100)
    union = DetTTAModel(settings, module=Detector())
    samples = [
        view([[10, 5, 30, 40], [50, 0, 60, 9]], [0.8, 0.5], [0, 0]),
        view([[70, 5, 90, 40]], [0.4], [0], "horizontal"),
    ]
    scores = union.merge_preds([samples])[0].pred_instances.scores
    torch.testing.assert_close(scores, torch.tensor([0.8, 0.5]))


def test_several_images_keep_their_samples():
    model = FlipAveraging(Detector())
    pairs = [
        [view([[0, 0, 9, 9]], [score], [0]), view([], [], [], "horizontal")] for score in (0.8, 0.4)
    ]
    merged = model.merge_preds(pairs)
    assert [sample is pair[0] for sample, pair in zip(merged, pairs, strict=True)] == [True, True]
    assert [round(s.pred_instances.scores.item(), 5) for s in merged] == [0.4, 0.2]


def test_masks_are_refused():
    sample = view([[0, 0, 9, 9]], [0.8], [0])
    sample.pred_instances.masks = torch.zeros(1, 60, 100, dtype=torch.bool)
    with pytest.raises(ValueError, match="predicts masks"):
        FlipAveraging(Detector()).merge_preds([[sample, view(*NOTHING, flip="horizontal")]])


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_threshold_outside_its_range(threshold):
    with pytest.raises(ValueError, match=r"\[0, 1\), found"):
        FlipAveraging(Detector(), iou_threshold=threshold)


def test_any_config_finds_it():
    model = MODELS.build({"type": "dap.FlipAveraging", "module": Detector(), "max_per_img": 7})
    assert isinstance(model, FlipAveraging)
    assert (model.iou_threshold, model.max_per_img) == (0.5, 7)
