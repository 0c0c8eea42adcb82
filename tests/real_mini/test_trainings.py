"""Pre-trainings of the benchmark: detectors, optimisers, and images that lose their boxes."""

import json
from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData

from dap.testing import draw_image, write_image

CONFIGS = Path(__file__).resolve().parents[2] / "projects" / "real_mini" / "configs"


@pytest.mark.parametrize("detector", ["faster-rcnn", "rtmdet-tiny"])
def test_step_on_images_of_odd_sizes(detector):
    """One of them has no object."""
    pytest.importorskip("timm", reason="of the dependency group lite0")
    register_all_modules()
    config = Config.fromfile(CONFIGS / f"pretrain_{detector}.py")
    model = MODELS.build(config.model)
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    rates = {group["lr"] for group in optimizer.param_groups}
    assert rates == {1e-4, 1e-3}  # a tenth for the backbone
    samples = []
    for boxes in ([[10.0, 20.0, 60.0, 70.0]], []):
        sample = DetDataSample(metainfo={"img_shape": (75, 101), "ori_shape": (75, 101)})
        labels = torch.full((len(boxes),), 7)
        boxes = torch.tensor(boxes).reshape(-1, 4)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        samples.append(sample)
    images = [torch.randint(0, 256, (3, 75, 101), dtype=torch.uint8) for _ in samples]
    losses = model.train_step({"inputs": images, "data_samples": samples}, optimizer)
    assert all(bool(torch.isfinite(torch.as_tensor(value))) for value in losses.values())


def test_image_that_loses_all_its_boxes_is_background(make_plan, tmp_path):
    """True boxes may be smaller than the smallest that is trained on."""
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "a.png", draw_image((120, 90), [], []))
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 120, "height": 90}],
        "categories": [{"id": 1, "name": "fly"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [50, 40, 1, 1], "area": 1,
             "iscrowd": 0}
        ],
    }  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    plan = make_plan("truth", truth=str(tmp_path / "truth.json"))
    register_all_modules()
    dataset = DATASETS.build(plan.jobs["pretrain_true-boxes"].config.train_dataloader.dataset)
    sizes = [len(dataset[0]["data_samples"].gt_instances) for _ in range(4)]
    assert sizes == [0] * 4
