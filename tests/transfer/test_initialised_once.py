"""Weights from a detector, beside what init_weights itself reads and draws."""

import copy

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader

from dap.testing import make_coco
from dap.transfer import category_dependent_parameters
from tests.support.tiny_detectors import (
    FASTER_RCNN_DEPENDENT,
    assert_moved,
    build,
    initialised,
    mark,
    run_one_iteration,
    save_marked,
    tiny_model,
    with_init_cfg,
)


def refuse_to_load(url, **_):
    raise AssertionError(f"{url} must not be read")


@pytest.mark.parametrize("init_cfg", ["alone", "with others"])
def test_checkpoint_of_the_backbone_is_not_read(tmp_path, monkeypatch, log, init_cfg):
    path, weights = save_marked(tmp_path / "dap.pth")
    model_cfg = tiny_model("faster-rcnn", 4)
    pretrained = {"type": "Pretrained", "checkpoint": "torchvision://resnet18"}
    constant = {"type": "Constant", "layer": "Conv2d", "val": 3}
    model_cfg.backbone.init_cfg = pretrained if init_cfg == "alone" else [constant, pretrained]
    monkeypatch.setattr(CheckpointLoader, "load_checkpoint", refuse_to_load)

    detector = initialised(model_cfg, path)

    assert_moved(detector.state_dict(), weights, FASTER_RCNN_DEPENDENT)
    assert f"backbone: skip torchvision://resnet18, weights come from {path}" in log()


def test_checkpoint_of_a_backbone_that_is_allowed_to_miss_is_read(tmp_path):
    path, weights = save_marked(tmp_path / "dap.pth", kind="raw")
    head = {n: v for n, v in weights.items() if not n.startswith("backbone.")}
    torch.save(head, path)
    backbone = {n.removeprefix("backbone."): v + 5 for n, v in weights.items() if n not in head}
    torch.save(backbone, tmp_path / "backbone.pth")
    model_cfg = tiny_model("faster-rcnn", 4)
    model_cfg.backbone.init_cfg = {
        "type": "Pretrained",
        "checkpoint": str(tmp_path / "backbone.pth"),
    }

    detector = initialised(
        model_cfg, path, allow_missing="backbone", model_cfg=tiny_model("faster-rcnn", 4)
    )

    assert detector.backbone.conv1.weight.min() >= 15
    assert_moved(
        detector.state_dict(),
        head | {f"backbone.{name}": value for name, value in backbone.items()},
        FASTER_RCNN_DEPENDENT,
    )


class TestDetrsInitialiseThemselvesAgain:
    """DINO initialises encoder and decoder again after init_cfg."""

    @pytest.fixture
    def dino(self, tmp_path):
        path, weights = save_marked(tmp_path / "dap.pth", "dino", 3)
        detector = initialised(tiny_model("dino", 5), path)
        # the value that DINO's own init_weights has left
        weight = detector.encoder.layers[0].ffn.layers[1].weight
        assert weight.abs().max() < 10
        return detector, weight, weights["encoder.layers.0.ffn.layers.1.weight"]

    def test_state_dict(self, dino):
        detector, weight, expected = dino

        detector.state_dict()

        assert torch.equal(weight, expected)

    def test_forward(self, dino):
        detector, weight, expected = dino
        seen = []
        detector.encoder.register_forward_pre_hook(lambda *_: seen.append(weight.clone()))

        with DefaultScope.overwrite_default_scope("mmdet"), torch.no_grad():
            detector.eval()
            batch = {"inputs": [torch.zeros(3, 64, 64, dtype=torch.uint8)]}
            batch["data_samples"] = [sample((64, 64))]
            detector.test_step(batch)

        assert torch.equal(seen[0], expected)

    def test_later_weights_win(self, dino):
        detector, weight, expected = dino
        part = {"encoder.layers.0.ffn.layers.1.bias": torch.zeros(256)}

        detector.load_state_dict(part, strict=False)

        assert torch.equal(weight, expected)
        assert detector.state_dict()["encoder.layers.0.ffn.layers.1.bias"].eq(0).all()

    def test_only_once(self, dino):
        detector, weight, _ = dino
        detector.state_dict()
        with torch.no_grad():
            weight.fill_(2)

        assert detector.state_dict()["encoder.layers.0.ffn.layers.1.weight"].eq(2).all()

    def test_copies_are_their_own(self, dino):
        detector, weight, expected = dino
        twin = copy.deepcopy(detector)

        twin.state_dict()

        assert torch.equal(twin.encoder.layers[0].ffn.layers[1].weight, expected)
        assert weight.abs().max() < 10


def test_other_detectors_have_their_weights_at_once(tmp_path):
    path, weights = save_marked(tmp_path / "dap.pth")
    model_cfg = tiny_model("faster-rcnn", 4)

    detector = initialised(model_cfg, path)

    assert torch.equal(
        detector.neck.fpn_convs[0].conv.weight, weights["neck.fpn_convs.0.conv.weight"]
    )
    assert not detector._forward_pre_hooks


def sample(size_hw):
    from mmdet.structures import DetDataSample

    meta = {"img_shape": size_hw, "ori_shape": size_hw, "scale_factor": (1.0, 1.0), "img_id": 1}
    return DetDataSample(metainfo={**meta, "batch_input_shape": size_hw})


@pytest.mark.parametrize("family", ["faster-rcnn", "dino"])
def test_chain_of_two_runners(tmp_path, family):
    """Step 4 starts from the checkpoint that MMEngine wrote in Step 3; equal class counts."""
    classes = ("blue", "green", "red")
    annotations = make_coco(tmp_path / "coco", images=3, classes=classes)
    model_cfg = tiny_model(family, 3)
    mark_path = tmp_path / "marked.pth"
    torch.save(mark(build(copy.deepcopy(model_cfg))).state_dict(), mark_path)
    model_cfg.init_cfg = {"type": "Pretrained", "checkpoint": str(mark_path)}
    if family == "dino":  # DINO itself overwrites what Pretrained loads
        model_cfg.init_cfg = None
    first = run_one_iteration(tmp_path / "first", annotations, model_cfg, classes)
    weights = torch.load(first, weights_only=True)["state_dict"]
    target_cfg = with_init_cfg(tiny_model(family, 3), checkpoint=first)

    second = run_one_iteration(tmp_path / "second", annotations, target_cfg, classes)

    moved = torch.load(second, weights_only=True)["state_dict"]
    dependent = category_dependent_parameters(tiny_model(family, 3))
    for name, value in moved.items():
        if name not in dependent:
            assert torch.equal(value, weights[name]), name
    drawn = [name for name in dependent if name.endswith("weight")]
    assert drawn
    assert not any(torch.equal(moved[name], weights[name]) for name in drawn)
