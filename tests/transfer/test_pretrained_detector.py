"""dap.PretrainedDetector on real detectors, made tiny.

Source detectors are filled with numbers between 10 and 11, which no initialisation gives.
"""

import copy
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from tiny_detectors import (
    FAMILIES,
    build,
    mark,
    run_one_iteration,
    save_mmengine,
    tiny_model,
    with_init_cfg,
)

from dap.testing import make_coco, tiny_classifier_config
from dap.transfer import PretrainedDetector, category_dependent_parameters, transfer

FASTER_RCNN_DEPENDENT = {
    f"roi_head.bbox_head.{layer}.{kind}"
    for layer in ("fc_cls", "fc_reg")
    for kind in ("weight", "bias")
}


def source(path, family="faster-rcnn", num_classes=4, kind="mmengine", **changes):
    """Write a checkpoint, and give its path and its weights."""
    model_cfg = tiny_model(family, num_classes, **changes)
    detector = mark(build(copy.deepcopy(model_cfg)))
    if kind == "mmengine":
        save_mmengine(path, detector, model_cfg)
    else:
        torch.save(detector.state_dict(), path)
    return path, detector.state_dict()


def init(target_cfg, checkpoint, **kwargs):
    """Build and initialise a detector without a Runner."""
    target_cfg = with_init_cfg(target_cfg, checkpoint=checkpoint, **kwargs)
    detector = build(target_cfg)
    detector.init_weights()
    return detector


def assert_moved(detector, weights, dependent):
    state = detector.state_dict()
    for name, value in state.items():
        if name in dependent:
            assert value.abs().max() < 10, name
        else:
            assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize("num_classes", [4, 6])
@pytest.mark.parametrize("kind", ["mmengine", "raw"])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_but_the_category_dependent_layers_move(tmp_path, family, kind, num_classes):
    path, weights = source(tmp_path / "dap.pth", family, num_classes=4, kind=kind)
    model_cfg = tiny_model(family, num_classes)
    dependent = category_dependent_parameters(model_cfg)

    passed = {"raw": {"model_cfg": tiny_model(family, 4)}, "mmengine": {}}[kind]
    detector = init(model_cfg, path, **passed)

    assert dependent
    assert_moved(detector, weights, dependent)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    path, weights = source(tmp_path / "dap.pth", kind="raw")
    weights["neck.fpn_convs.0.conv.weight"][-1] = value
    torch.save(weights, path)

    with pytest.raises(
        ValueError, match=r"dap\.pth: neck\.fpn_convs\.0\.conv\.weight holds .* 1 such"
    ):
        init(tiny_model("faster-rcnn", 4), path)


def test_report_names_every_tensor_once(tmp_path):
    path, weights = source(tmp_path / "dap.pth")
    detector = build(tiny_model("mask-rcnn", 4))

    report = PretrainedDetector(path, allow_missing=("roi_head.mask_head",))(detector)

    names = (*report.loaded, *report.category_dependent, *report.missing)
    assert sorted(names) == sorted(detector.state_dict())
    assert set(report.category_dependent) == FASTER_RCNN_DEPENDENT
    assert {name.rpartition(".mask_head.")[0] for name in report.missing} == {"roi_head"}
    assert set(report.loaded) == weights.keys() - FASTER_RCNN_DEPENDENT
    assert report.unexpected == ()


def test_old_checkpoint_without_the_counters_of_batch_norms(tmp_path):
    path, weights = source(tmp_path / "dap.pth", kind="raw")
    counters = {name for name in weights if name.endswith("num_batches_tracked")}
    torch.save({n: v for n, v in weights.items() if n not in counters}, path)

    model_cfg = tiny_model("faster-rcnn", 4)
    report = PretrainedDetector(path, model_cfg=model_cfg)(build(model_cfg))

    assert counters
    assert report.missing == ()
    assert set(report.loaded) == weights.keys() - counters - FASTER_RCNN_DEPENDENT


def test_table_in_the_log(tmp_path, log):
    path, weights = source(tmp_path / "dap.pth")
    torch.save({**weights, "neck.extra.weight": torch.zeros(1), "old": torch.zeros(1)}, path)
    model_cfg = tiny_model("faster-rcnn", 4)

    init(model_cfg, path, model_cfg=model_cfg)

    lines = [line.split() for line in log().splitlines()]
    assert ["module", "loaded", "category-dependent", "missing", "unexpected"] in lines
    assert ["neck", "16", "0", "0", "1"] in lines
    assert ["rpn_head", "6", "0", "0", "0"] in lines
    assert ["roi_head.bbox_head", "4", "4", "0", "0"] in lines
    assert ["old", "0", "0", "0", "1"] in lines
    assert ["total", str(len(weights) - 4), "4", "0", "2"] in lines
    assert "unexpected: neck.extra.weight, old" in log()


@pytest.mark.parametrize("kind", ["dict", "config", "file"])
def test_config_of_raw_weights_is_passed(tmp_path, kind):
    path, weights = source(tmp_path / "dap.pth", num_classes=7, kind="raw")
    model_cfg = tiny_model("faster-rcnn", 7).to_dict()
    config = Config({"model": model_cfg})
    config.dump(tmp_path / "config.py")
    passed = {"dict": model_cfg, "config": config, "file": str(tmp_path / "config.py")}[kind]

    detector = build(tiny_model("faster-rcnn", 7))
    report = PretrainedDetector(path, model_cfg=passed)(detector)

    assert set(report.category_dependent) == FASTER_RCNN_DEPENDENT
    assert_moved(detector, weights, FASTER_RCNN_DEPENDENT)


def test_nothing_tells_what_depends_on_the_categories(tmp_path):
    path, _ = source(tmp_path / "dap.pth", num_classes=9, kind="raw")
    alive = tiny_model("faster-rcnn", 9)  # what else lives must not matter
    detector = build(alive)

    with pytest.raises(ValueError, match=r"dap\.pth has no config.*model_cfg=CONFIG.*--config"):
        PretrainedDetector(path)(detector)


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_tell_if_no_config_does(tmp_path, log, family):
    path, weights = source(tmp_path / "dap.pth", family, num_classes=4, kind="raw")
    detector = build(tiny_model(family, 9))

    report = PretrainedDetector(path)(detector)

    dependent = category_dependent_parameters(tiny_model(family, 9))
    assert set(report.category_dependent) == dependent
    assert_moved(detector, weights, dependent)
    assert "no config found" in log()


@pytest.mark.parametrize("changes", [{"roi_feat_size": 5}, {"fc_out_channels": 32}])
def test_other_differences_tell_nothing_of_the_categories(tmp_path, changes):
    """Equal class counts, but wider: were this taken for the class layers, they would move."""
    changes = {f"roi_head.bbox_head.{key}": value for key, value in changes.items()}
    path, _ = source(tmp_path / "dap.pth", num_classes=8, kind="raw")
    detector = build(tiny_model("faster-rcnn", 8, **changes))

    with pytest.raises(ValueError, match="no shape shows another class count"):
        PretrainedDetector(path, allow_missing="roi_head.bbox_head")(detector)


def test_config_of_the_checkpoint_that_cannot_be_built(tmp_path, log):
    model_cfg = tiny_model("faster-rcnn", 4)
    detector = mark(build(copy.deepcopy(model_cfg)))
    model_cfg.neck.type = "NeckOfAnotherProject"
    path = save_mmengine(tmp_path / "dap.pth", detector, model_cfg)
    target = init(tiny_model("faster-rcnn", 9), path)

    assert "dap.pth: the detector of its config cannot be built here" in log()
    assert "NeckOfAnotherProject" in log()
    assert_moved(target, detector.state_dict(), FASTER_RCNN_DEPENDENT)
    with pytest.raises(ValueError, match=r"cannot be built here .*NeckOfAnotherProject") as error:
        init(tiny_model("faster-rcnn", 4), path)
    assert "has no config" not in str(error.value)


def test_category_dependent_in_the_source_alone(tmp_path):
    """Class-specific regression in the source, agnostic in the target."""
    path, _ = source(tmp_path / "dap.pth", num_classes=4)

    detector = init(tiny_model("faster-rcnn-agnostic", 4), path)

    assert detector.state_dict()["roi_head.bbox_head.fc_reg.weight"].abs().max() < 10
    assert detector.state_dict()["roi_head.bbox_head.shared_fcs.0.weight"].min() >= 10


def test_other_shapes_are_missing_and_named(tmp_path, log):
    path, weights = source(tmp_path / "dap.pth", "faster-rcnn")
    model_cfg = tiny_model("faster-rcnn", 4, **{"roi_head.bbox_head.roi_feat_size": 5})

    detector = init(model_cfg, path)

    name = "roi_head.bbox_head.shared_fcs.0.weight"
    assert detector.state_dict()[name].abs().max() < 10
    assert f"missing, since of another shape: {name} (16, 392) in place of (16, 200)" in log()
    assert_moved(detector, weights, {*FASTER_RCNN_DEPENDENT, name})


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
def test_module_that_finds_nothing(tmp_path, family, part):
    path, weights = source(tmp_path / "dap.pth", family, kind="raw")
    torch.save({n.replace(f"{part}.", f"{part}s."): v for n, v in weights.items()}, path)
    model_cfg = tiny_model(family, 4)

    with pytest.raises(ValueError, match=f"dap.pth has nothing for {part}\\. ") as error:
        init(model_cfg, path, model_cfg=model_cfg)
    detector = init(model_cfg, path, allow_missing=[part], model_cfg=model_cfg)

    message = str(error.value)
    assert f"The detector has {part}." in message
    assert "the checkpoint has " in message
    assert f"allow_missing=('{part}',)" in message
    state = detector.state_dict()
    assert all(v.abs().max() < 10 for n, v in state.items() if n.startswith(f"{part}."))


def test_box_head_of_other_names_is_not_saved_by_its_class_layers(tmp_path):
    """Its category-dependent layers alone match, and these do not count."""
    path, weights = source(tmp_path / "dap.pth", kind="raw")
    torch.save({n.replace("shared_fcs", "fcs"): v for n, v in weights.items()}, path)

    model_cfg = tiny_model("faster-rcnn", 4)
    with pytest.raises(ValueError, match=r"nothing for roi_head\.bbox_head"):
        init(model_cfg, path, model_cfg=model_cfg)


def test_module_of_other_shapes_found_nothing(tmp_path):
    path, _ = source(tmp_path / "dap.pth", "retinanet", **{"bbox_head.feat_channels": 12})

    with pytest.raises(ValueError, match=r"nothing for bbox_head.*\(8, 8, 3, 3\).*\(12, 8, 3, 3\)"):
        init(tiny_model("retinanet", 4), path)


def semi_supervised(detector_cfg):
    """Give the config of a semi-supervised detector that has two of these."""
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
    path, weights = source(tmp_path / "dap.pth", kind="raw")
    both = {f"student.{name}": value for name, value in weights.items()}
    both |= {f"teacher.{name}": value + 1 for name, value in weights.items()}
    torch.save(both, path)
    model_cfg = tiny_model("faster-rcnn", 4)
    whole_cfg = semi_supervised(model_cfg)

    detector = init(model_cfg, path, prefix="student.", model_cfg=whole_cfg)

    assert_moved(detector, weights, FASTER_RCNN_DEPENDENT)
    with pytest.raises(ValueError, match=r"the checkpoint has student\.backbone.*pass prefix="):
        init(model_cfg, path, model_cfg=model_cfg)
    with pytest.raises(ValueError, match=r"prefix='pupil\.'; it has student\.backbone"):
        init(model_cfg, path, prefix="pupil.")


def test_prefix_that_the_config_does_not_have(tmp_path):
    """By the names of a plain detector nothing below the prefix would be category-dependent."""
    path, weights = source(tmp_path / "dap.pth", kind="raw")
    torch.save({f"student.{name}": value for name, value in weights.items()}, path)
    model_cfg = tiny_model("faster-rcnn", 4)

    with pytest.raises(ValueError, match=r"none of the 4 names .* by model_cfg begins so"):
        init(model_cfg, path, prefix="student.", model_cfg=model_cfg)


def test_model_cfg_of_another_detector(tmp_path):
    path, _ = source(tmp_path / "dap.pth", kind="raw")

    with pytest.raises(ValueError, match=r"model_cfg is of another detector .*retina_cls"):
        init(tiny_model("faster-rcnn", 4), path, model_cfg=tiny_model("retinanet", 4))


def test_names_that_mmdet_converts(tmp_path):
    """mmdet calls the head of a single RPN bbox_head and renames it for a two-stage detector."""
    path, weights = source(tmp_path / "rpn.pth")
    weights = {n: v for n, v in weights.items() if not n.startswith("roi_head.")}
    torch.save({n.replace("rpn_head.", "bbox_head."): v for n, v in weights.items()}, path)

    model_cfg = tiny_model("faster-rcnn", 4)
    detector = init(model_cfg, path, allow_missing="roi_head.bbox_head", model_cfg=model_cfg)

    assert torch.equal(detector.rpn_head.rpn_conv.weight, weights["rpn_head.rpn_conv.weight"])


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
        init(model_cfg, path)

    assert f"checkpoint='{path}', prefix='backbone.'" in str(error.value)
    assert "neck, rpn_head, roi_head.bbox_head" in str(error.value)


def test_backbone_checkpoint_is_named_as_such(classifier):
    path, model, model_cfg = classifier
    torch.save(model.backbone.state_dict(), path)

    with pytest.raises(ValueError, match="a checkpoint of a backbone alone") as error:
        init(model_cfg, path)

    assert f"checkpoint='{path}'))" in str(error.value)


def test_cure_for_a_classifier_checkpoint_works(classifier):
    """The config that the message proposes, and allow_missing, do the same."""
    path, model, model_cfg = classifier
    proposed = copy.deepcopy(model_cfg)
    proposed.backbone.init_cfg = {
        "type": "Pretrained",
        "checkpoint": str(path),
        "prefix": "backbone.",
    }
    proposed = build(proposed)
    proposed.init_weights()
    allowed = init(model_cfg, path, allow_missing=("neck", "rpn_head", "roi_head"))

    for detector in (proposed, allowed):
        state = detector.backbone.state_dict()
        assert all(torch.equal(value, state[n]) for n, value in model.backbone.state_dict().items())
        assert detector.neck.state_dict()["fpn_convs.0.conv.weight"].abs().max() < 10


def refuse_to_load(url, **_):
    raise AssertionError(f"{url} must not be read")


@pytest.mark.parametrize("init_cfg", ["alone", "with others"])
def test_checkpoint_of_the_backbone_is_not_read(tmp_path, monkeypatch, log, init_cfg):
    path, weights = source(tmp_path / "dap.pth")
    model_cfg = tiny_model("faster-rcnn", 4)
    pretrained = {"type": "Pretrained", "checkpoint": "torchvision://resnet18"}
    constant = {"type": "Constant", "layer": "Conv2d", "val": 3}
    model_cfg.backbone.init_cfg = pretrained if init_cfg == "alone" else [constant, pretrained]
    monkeypatch.setattr(CheckpointLoader, "load_checkpoint", refuse_to_load)

    detector = init(model_cfg, path)

    assert_moved(detector, weights, FASTER_RCNN_DEPENDENT)
    assert f"backbone: skip torchvision://resnet18, weights come from {path}" in log()


def test_checkpoint_of_a_backbone_that_is_allowed_to_miss_is_read(tmp_path):
    path, weights = source(tmp_path / "dap.pth", kind="raw")
    head = {n: v for n, v in weights.items() if not n.startswith("backbone.")}
    torch.save(head, path)
    backbone = {n.removeprefix("backbone."): v + 5 for n, v in weights.items() if n not in head}
    torch.save(backbone, tmp_path / "backbone.pth")
    model_cfg = tiny_model("faster-rcnn", 4)
    model_cfg.backbone.init_cfg = {
        "type": "Pretrained",
        "checkpoint": str(tmp_path / "backbone.pth"),
    }

    detector = init(
        model_cfg, path, allow_missing="backbone", model_cfg=tiny_model("faster-rcnn", 4)
    )

    assert detector.backbone.conv1.weight.min() >= 15
    assert_moved(
        detector,
        head | {f"backbone.{name}": value for name, value in backbone.items()},
        FASTER_RCNN_DEPENDENT,
    )


class TestDetrsInitialiseThemselvesAgain:
    """DINO draws encoder and decoder anew after init_cfg."""

    @pytest.fixture
    def dino(self, tmp_path):
        path, weights = source(tmp_path / "dap.pth", "dino", 3)
        detector = init(tiny_model("dino", 5), path)
        # what this is about: the value that init_weights itself has left behind
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
    path, weights = source(tmp_path / "dap.pth")
    model_cfg = tiny_model("faster-rcnn", 4)

    detector = init(model_cfg, path)

    assert torch.equal(
        detector.neck.fpn_convs[0].conv.weight, weights["neck.fpn_convs.0.conv.weight"]
    )
    assert not detector._forward_pre_hooks


def test_transfer_changes_neither_weights_nor_names():
    weights = mark(build(tiny_model("retinanet", 4))).state_dict()
    before = {name: value.clone() for name, value in weights.items()}
    detector = build(tiny_model("retinanet", 4))

    report = transfer(detector, weights, {"bbox_head.retina_cls.weight"})

    assert report.category_dependent == ("bbox_head.retina_cls.weight",)
    assert detector.bbox_head.retina_cls.weight.abs().max() < 10
    assert detector.bbox_head.retina_cls.bias.min() >= 10
    assert list(weights) == list(before)
    assert all(torch.equal(weights[name], before[name]) for name in before)


def sample(size_hw):
    from mmdet.structures import DetDataSample

    meta = {"img_shape": size_hw, "ori_shape": size_hw, "scale_factor": (1.0, 1.0), "img_id": 1}
    return DetDataSample(metainfo={**meta, "batch_input_shape": size_hw})


@pytest.mark.parametrize("family", ["faster-rcnn", "dino"])
def test_chain_of_two_runners(tmp_path, family):
    """Step 3 writes MMEngine's own checkpoint, Step 4 starts from it: real runs, equal counts."""
    classes = ("blue", "green", "red")
    annotations = make_coco(tmp_path / "coco", images=3, classes=classes)
    model_cfg = tiny_model(family, 3)
    mark_path = tmp_path / "marked.pth"
    torch.save(mark(build(copy.deepcopy(model_cfg))).state_dict(), mark_path)
    model_cfg.init_cfg = {"type": "Pretrained", "checkpoint": str(mark_path)}
    if family == "dino":  # Pretrained is undone by DINO itself: start from the next best
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


def test_type_is_found_without_custom_imports():
    code = (
        "from mmengine.registry import WEIGHT_INITIALIZERS as W; "
        "print(W.get('dap.PretrainedDetector').__module__)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["dap.transfer.pretrained_detector"]
