"""A module of the detector that finds nothing in the checkpoint is an error that says why."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from dap.testing import tiny_classifier_config
from tests.support.tiny_detectors import (
    FASTER_RCNN_DEPENDENT,
    assert_moved,
    build,
    initialised,
    mark,
    save_marked,
    save_mmengine,
    tiny_model,
)


@pytest.mark.parametrize(
    ("family", "part"),
    [
        ("faster-rcnn", "backbone"),
        ("faster-rcnn", "neck"),
        ("faster-rcnn", "rpn_head"),
        ("faster-rcnn", "roi_head.bbox_head"),
        ("cascade-rcnn", "roi_head.bbox_head.1"),
        ("retinanet", "bbox_head"),
        ("mask-rcnn", "roi_head.mask_head"),
        ("dino", "encoder"),
        ("dino", "query_embedding"),
    ],
)
def test_module_without_any_weight_in_the_checkpoint(tmp_path, family, part):
    path, weights = save_marked(tmp_path / "dap.pth", family, kind="raw")
    torch.save({n.replace(f"{part}.", f"{part}s."): v for n, v in weights.items()}, path)
    model_cfg = tiny_model(family, 4)

    with pytest.raises(ValueError, match=f"dap.pth has nothing for {part}\\. ") as error:
        initialised(model_cfg, path, model_cfg=model_cfg)
    detector = initialised(model_cfg, path, allow_missing=[part], model_cfg=model_cfg)

    message = str(error.value)
    assert f"The detector has {part}." in message
    assert "the checkpoint has " in message
    assert f"allow_missing=('{part}',)" in message
    state = detector.state_dict()
    assert all(v.abs().max() < 10 for n, v in state.items() if n.startswith(f"{part}."))


def test_box_head_of_other_names_is_not_saved_by_its_class_layers(tmp_path):
    """Only its category-dependent layers match, and they do not count as found."""
    path, weights = save_marked(tmp_path / "dap.pth", kind="raw")
    torch.save({n.replace("shared_fcs", "fcs"): v for n, v in weights.items()}, path)

    model_cfg = tiny_model("faster-rcnn", 4)
    with pytest.raises(ValueError, match=r"nothing for roi_head\.bbox_head"):
        initialised(model_cfg, path, model_cfg=model_cfg)


def test_module_whose_shapes_all_differ(tmp_path):
    path, _ = save_marked(tmp_path / "dap.pth", "retinanet", **{"bbox_head.feat_channels": 12})

    with pytest.raises(ValueError, match=r"nothing for bbox_head.*\(8, 8, 3, 3\).*\(12, 8, 3, 3\)"):
        initialised(tiny_model("retinanet", 4), path)


def semi_supervised(detector_cfg):
    """Give the config of a semi-supervised detector: student and teacher of one kind."""
    preprocessor = {"type": "MultiBranchDataPreprocessor"}
    preprocessor["data_preprocessor"] = detector_cfg.data_preprocessor
    return ConfigDict(
        type="SoftTeacher",
        detector=copy.deepcopy(detector_cfg),
        data_preprocessor=preprocessor,
        semi_train_cfg={"freeze_teacher": True},
        semi_test_cfg={"predict_on": "teacher"},
    )


def test_prefix_takes_one_detector_of_several(tmp_path):
    path, weights = save_marked(tmp_path / "dap.pth", kind="raw")
    both = {f"student.{name}": value for name, value in weights.items()}
    both |= {f"teacher.{name}": value + 1 for name, value in weights.items()}
    torch.save(both, path)
    model_cfg = tiny_model("faster-rcnn", 4)
    whole_cfg = semi_supervised(model_cfg)

    detector = initialised(model_cfg, path, prefix="student.", model_cfg=whole_cfg)

    assert_moved(detector.state_dict(), weights, FASTER_RCNN_DEPENDENT)
    with pytest.raises(ValueError, match=r"the checkpoint has student\.backbone.*pass prefix="):
        initialised(model_cfg, path, model_cfg=model_cfg)
    with pytest.raises(ValueError, match=r"prefix='pupil\.'; it has student\.backbone"):
        initialised(model_cfg, path, prefix="pupil.")


def test_prefix_that_the_config_does_not_have(tmp_path):
    """model_cfg lacks the prefix, so none of its category-dependent names would match."""
    path, weights = save_marked(tmp_path / "dap.pth", kind="raw")
    torch.save({f"student.{name}": value for name, value in weights.items()}, path)
    model_cfg = tiny_model("faster-rcnn", 4)

    with pytest.raises(ValueError, match=r"none of the 4 names .* by model_cfg begins so"):
        initialised(model_cfg, path, prefix="student.", model_cfg=model_cfg)


def test_model_cfg_of_another_detector(tmp_path):
    path, _ = save_marked(tmp_path / "dap.pth", kind="raw")

    with pytest.raises(ValueError, match=r"model_cfg is of another detector .*retina_cls"):
        initialised(tiny_model("faster-rcnn", 4), path, model_cfg=tiny_model("retinanet", 4))


@pytest.fixture
def classifier(tmp_path):
    """A checkpoint of an mmpretrain classifier, and a detector's config with its backbone."""
    from mmpretrain.registry import MODELS

    config = tiny_classifier_config()
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = mark(MODELS.build(copy.deepcopy(config)))
    path = save_mmengine(tmp_path / "resnet.pth", model, config, scope="mmpretrain")
    changes = {"backbone.base_channels": 8, "neck.in_channels": [8, 16, 32, 64]}
    return path, model, tiny_model("faster-rcnn", 4, **changes)


@pytest.mark.parametrize("kind", ["mmengine", "raw"])
def test_classifier_checkpoint_is_named_as_such(classifier, kind):
    path, model, model_cfg = classifier
    if kind == "raw":
        torch.save(model.state_dict(), path)

    with pytest.raises(ValueError, match="a classifier's checkpoint") as error:
        initialised(model_cfg, path)

    assert f"checkpoint='{path}', prefix='backbone.'" in str(error.value)
    assert "neck, rpn_head, roi_head.bbox_head" in str(error.value)


def test_backbone_checkpoint_is_named_as_such(classifier):
    """Before the weights are read, or downloaded, that the detector's config names."""
    path, model, model_cfg = classifier
    torch.save(model.backbone.state_dict(), path)
    model_cfg.backbone.init_cfg = {"type": "Pretrained", "checkpoint": "nowhere.pth"}

    with pytest.raises(ValueError, match="a checkpoint of a backbone alone") as error:
        initialised(model_cfg, path)

    assert f"checkpoint='{path}'))" in str(error.value)


def test_backbone_of_a_classifier_by_its_prefix_is_named_as_such(classifier):
    path, _, model_cfg = classifier

    with pytest.raises(ValueError, match="a checkpoint of a backbone alone") as error:
        initialised(model_cfg, path, prefix="backbone.")

    assert f"checkpoint='{path}', prefix='backbone.'))" in str(error.value)


def test_config_proposed_for_a_classifier_checkpoint_works(classifier):
    """The config in the message and allow_missing give the same backbone."""
    path, model, model_cfg = classifier
    proposed = copy.deepcopy(model_cfg)
    proposed.backbone.init_cfg = {
        "type": "Pretrained",
        "checkpoint": str(path),
        "prefix": "backbone.",
    }
    proposed = build(proposed)
    proposed.init_weights()
    allowed = initialised(model_cfg, path, allow_missing=("neck", "rpn_head", "roi_head"))

    for detector in (proposed, allowed):
        state = detector.backbone.state_dict()
        assert all(torch.equal(value, state[n]) for n, value in model.backbone.state_dict().items())
        assert detector.neck.state_dict()["fpn_convs.0.conv.weight"].abs().max() < 10
