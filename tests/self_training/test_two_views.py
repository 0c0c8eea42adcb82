"""What the config of the predictions makes of an image and its mirror, by hand. 100 x 60 px."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "finetune" / "self_training"


class Detector(torch.nn.Module):
    def test_step(self, data):
        return data


def view(boxes, scores, flip=None):
    sample = DetDataSample(
        metainfo={"ori_shape": (60, 100), "flip": flip is not None, "flip_direction": flip}
    )
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.zeros(len(scores), dtype=torch.long),
    )
    return sample


@pytest.fixture(scope="module")
def model():
    config = Config.fromfile(CONFIGS / "predict_faster-rcnn_r50_fpn_voc12.py")
    return MODELS.build({**config.tta_model, "module": Detector()})


def merge(model, image, mirror):
    (merged,) = model.merge_preds([[view(*image), view(*mirror, flip="horizontal")]])
    found = merged.pred_instances
    return [
        (round(score, 4), [round(corner, 3) for corner in box])
        for score, box in zip(found.scores.tolist(), found.bboxes.tolist(), strict=True)
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_box_of_one_view_alone_keeps_its_score(model, turned):
    """.99 passes the paper's .6, whichever view shows the box; [10, 30) is [70, 90) mirrored."""
    image, mirror = ([[10, 5, 30, 40]], [0.99]), ([], [])
    if turned:
        image, mirror = mirror, ([[70, 5, 90, 40]], [0.99])
    assert merge(model, image, mirror) == [(0.99, [10, 5, 30, 40])]


def test_box_of_both_views_is_one_with_the_higher_score(model):
    found = merge(model, ([[10, 5, 30, 40]], [0.7]), ([[70, 5, 90, 40]], [0.8]))
    assert found == [(0.8, [10, 5, 30, 40])]


def test_nothing_found(model):
    assert merge(model, ([], []), ([], [])) == []
