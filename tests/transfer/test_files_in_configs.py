"""Configs whose constructors would read or download weights: none is, when a twin is built."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict

from dap.transfer import PretrainedDetector, category_dependent_parameters, extract_detector
from tests.support.tiny_detectors import build, mark, save_mmengine, tiny_model

timm = pytest.importorskip("timm")
NAMES = {
    f"roi_head.bbox_head.{layer}.{kind}"
    for layer in ("fc_cls", "fc_reg")
    for kind in ("weight", "bias")
}


def with_timm(num_classes, **backbone):
    model_cfg = tiny_model("faster-rcnn", num_classes)
    model_cfg.neck.in_channels = [64, 128, 256, 512]
    model_cfg.backbone = ConfigDict(
        type="mmpretrain.TIMMBackbone",
        model_name="resnet18",
        features_only=True,
        out_indices=(1, 2, 3, 4),
        **backbone,
    )
    return model_cfg


@pytest.fixture
def no_weights(monkeypatch):
    """Let timm fail where it would load weights."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"weights must not be loaded: {args[1:]}")

    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    monkeypatch.setattr("timm.models._factory.load_checkpoint", refuse)


FILES = [{"pretrained": False}, {"pretrained": True}, {"checkpoint_path": "gone.pth"}]


@pytest.mark.parametrize("kind", ["mmpretrain.TIMMBackbone", "dap.FrozenTIMMBackbone"])
@pytest.mark.parametrize("backbone", FILES)
def test_timm_backbone_with_weights_of_its_own(no_weights, kind, backbone):
    model_cfg = with_timm(3, **backbone)
    model_cfg.backbone.type = kind

    assert category_dependent_parameters(model_cfg) == NAMES


@pytest.mark.parametrize("backbone", FILES)
def test_timm_backbone_from_extraction_to_transfer(tmp_path, backbone):
    detector = mark(build(with_timm(3)))
    path = save_mmengine(tmp_path / "dap.pth", detector, with_timm(3, **backbone))

    extracted = extract_detector(path, tmp_path / "out")
    target = build(with_timm(3))
    PretrainedDetector(path)(target)

    weights = detector.state_dict()
    assert torch.load(extracted, weights_only=True).keys() == weights.keys() - NAMES
    for name, value in target.state_dict().items():
        assert torch.equal(value, weights[name]) == (name not in NAMES), name


@pytest.mark.parametrize("pretrained", [None, "torchvision://resnet18"])
def test_mmdets_own_backbone_with_pretrained(pretrained):
    model_cfg = tiny_model("faster-rcnn", 3)
    del model_cfg.backbone["init_cfg"]
    model_cfg.backbone.pretrained = pretrained

    assert category_dependent_parameters(model_cfg) == NAMES


class TestDetectorThatCannotBeBuilt:
    """The message says so, and nothing that is not true."""

    @pytest.fixture
    def path(self, tmp_path):
        model_cfg = tiny_model("faster-rcnn", 3)
        detector = mark(build(copy.deepcopy(model_cfg)))
        model_cfg.neck.num_outs = "five"
        return save_mmengine(tmp_path / "dap.pth", detector, model_cfg)

    def test_when_extracting(self, path, tmp_path):
        with pytest.raises(ValueError, match=r"dap\.pth: the detector of its config cannot be"):
            extract_detector(path, tmp_path / "out")

    def test_when_transferring(self, path):
        with pytest.raises(ValueError, match=r"Nothing tells .*cannot be built") as error:
            PretrainedDetector(path)(build(tiny_model("faster-rcnn", 3)))

        assert "has no config" not in str(error.value)

    def test_when_passed(self, path):
        model_cfg = tiny_model("faster-rcnn", 3)
        model_cfg.neck.num_outs = "five"

        with pytest.raises(ValueError, match="model_cfg: the detector of its config cannot be"):
            PretrainedDetector(path, model_cfg=model_cfg)(build(tiny_model("faster-rcnn", 3)))
