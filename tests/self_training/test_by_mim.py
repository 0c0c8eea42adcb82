"""Images without ground truth → mim test --tta → pseudo labels, as users run it."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from dap.datasets import CheckedCocoDataset
from dap.testing import make_voc

CONFIG = """
_base_ = ["mmdet::_base_/models/faster-rcnn_r50_fpn.py", "mmdet::_base_/default_runtime.py"]
model = dict(
    backbone=dict(depth=18, base_channels=8, stem_channels=8, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8),
        bbox_head=dict(num_classes=20, in_channels=8, fc_out_channels=16),
    ),
    test_cfg=dict(rpn=dict(max_per_img=30), rcnn=dict(score_thr=0.0)),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="dap.CheckedCocoDataset",
        ann_file="images.json",
        data_prefix=dict(img="VOC2012/JPEGImages/"),
        metainfo=dict(classes=()),
        test_mode=True,
        pipeline=[],
    ),
)
test_cfg = dict(type="TestLoop")
test_evaluator = dict(
    type="CocoMetric", ann_file="images.json", format_only=True, outfile_prefix="predictions"
)
tta_model = dict(type="dap.FlipAveraging", max_per_img=5)
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=(96, 64), keep_ratio=True)],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [
                dict(
                    type="PackDetInputs",
                    meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor",
                               "flip", "flip_direction"),
                )
            ],
        ],
    ),
]
"""


def run(*command):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


@pytest.fixture
def workplace(tmp_path):
    """A devkit without Annotations, a config, and a detector with random weights."""
    voc = make_voc(tmp_path / "VOC2012", {"trainval": 3, "test": 1}, size_hw=(48, 64))
    shutil.rmtree(voc / "Annotations")
    (tmp_path / "config.py").write_text(CONFIG)
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(str(tmp_path / "config.py")).model)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "detector.pth")
    return tmp_path


def test_ground_truth_need_not_exist(workplace, tool, monkeypatch):
    monkeypatch.chdir(workplace)
    tool("unlabelled_images.py", "VOC2012", "--split", "trainval", "--out", "images.json")
    run("-m", "mim", "test", "mmdet", "config.py", "--checkpoint", "detector.pth", "--tta")
    predictions = json.loads((workplace / "predictions.bbox.json").read_text())
    # Five an image is the limit of dap.FlipAveraging here; the detector's own is 100.
    assert sorted(item["image_id"] for item in predictions) == [1] * 5 + [2] * 5 + [3] * 5
    assert all(0 < item["score"] < 0.6 for item in predictions)

    shown, _ = tool(
        "pseudo_labels.py", "images.json", "predictions.bbox.json", "--out", "labels.json"
    )
    assert "3 images; 0 labels by score >= 0.6" in shown
    best = {
        number: max(item["score"] for item in predictions if item["image_id"] == number)
        for number in (1, 2, 3)
    }
    labels = json.loads((workplace / "labels.json").read_text())["annotations"]
    assert {label["image_id"]: label["score"] for label in labels} == best
    assert not (workplace / "VOC2012" / "Annotations").exists()

    dataset = CheckedCocoDataset(
        ann_file=str(workplace / "labels.json"),
        data_prefix={"img": f"{workplace}/VOC2012/JPEGImages/"},
        metainfo={"classes": ()},
        pipeline=[],
    )
    assert sum(len(dataset.get_data_info(i)["instances"]) for i in range(3)) == len(labels)
