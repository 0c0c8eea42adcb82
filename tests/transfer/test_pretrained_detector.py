"""dap.PretrainedDetector on real detectors, made tiny.

Source detectors are filled with numbers between 10 and 11, which no initialisation gives.
"""

import copy
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from dap.transfer import PretrainedDetector, category_dependent_parameters, transfer
from tests.support.tiny_detectors import (
    FAMILIES,
    FASTER_RCNN_DEPENDENT,
    assert_moved,
    build,
    initialised,
    mark,
    save_marked,
    save_mmengine,
    tiny_model,
)


@pytest.mark.parametrize("num_classes", [4, 6])
@pytest.mark.parametrize("kind", ["mmengine", "raw"])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_but_the_category_dependent_layers_move(tmp_path, family, kind, num_classes):
    path, weights = save_marked(tmp_path / "dap.pth", family, num_classes=4, kind=kind)
    model_cfg = tiny_model(family, num_classes)
    dependent = category_dependent_parameters(model_cfg)

    passed = {"raw": {"model_cfg": tiny_model(family, 4)}, "mmengine": {}}[kind]
    detector = initialised(model_cfg, path, **passed)

    assert dependent
    assert_moved(detector.state_dict(), weights, dependent)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    path, weights = save_marked(tmp_path / "dap.pth", kind="raw")
    weights["neck.fpn_convs.0.conv.weight"][-1] = value
    torch.save(weights, path)

    with pytest.raises(
        ValueError, match=r"dap\.pth: neck\.fpn_convs\.0\.conv\.weight holds .* 1 such"
    ):
        initialised(tiny_model("faster-rcnn", 4), path)


def test_report_names_every_tensor_once(tmp_path):
    path, weights = save_marked(tmp_path / "dap.pth")
    detector = build(tiny_model("mask-rcnn", 4))

    report = PretrainedDetector(path, allow_missing=("roi_head.mask_head",))(detector)

    names = (*report.loaded, *report.category_dependent, *report.missing)
    assert sorted(names) == sorted(detector.state_dict())
    assert set(report.category_dependent) == FASTER_RCNN_DEPENDENT
    assert {name.rpartition(".mask_head.")[0] for name in report.missing} == {"roi_head"}
    assert set(report.loaded) == weights.keys() - FASTER_RCNN_DEPENDENT
    assert report.unexpected == ()


def test_old_checkpoint_without_the_counters_of_batch_norms(tmp_path):
    path, weights = save_marked(tmp_path / "dap.pth", kind="raw")
    counters = {name for name in weights if name.endswith("num_batches_tracked")}
    torch.save({n: v for n, v in weights.items() if n not in counters}, path)

    model_cfg = tiny_model("faster-rcnn", 4)
    report = PretrainedDetector(path, model_cfg=model_cfg)(build(model_cfg))

    assert counters
    assert report.missing == ()
    assert set(report.loaded) == weights.keys() - counters - FASTER_RCNN_DEPENDENT


def test_table_in_the_log(tmp_path, log):
    path, weights = save_marked(tmp_path / "dap.pth")
    torch.save({**weights, "neck.extra.weight": torch.zeros(1), "old": torch.zeros(1)}, path)
    model_cfg = tiny_model("faster-rcnn", 4)

    initialised(model_cfg, path, model_cfg=model_cfg)

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
    path, weights = save_marked(tmp_path / "dap.pth", num_classes=7, kind="raw")
    model_cfg = tiny_model("faster-rcnn", 7).to_dict()
    config = Config({"model": model_cfg})
    config.dump(tmp_path / "config.py")
    passed = {"dict": model_cfg, "config": config, "file": str(tmp_path / "config.py")}[kind]

    detector = build(tiny_model("faster-rcnn", 7))
    report = PretrainedDetector(path, model_cfg=passed)(detector)

    assert set(report.category_dependent) == FASTER_RCNN_DEPENDENT
    assert_moved(detector.state_dict(), weights, FASTER_RCNN_DEPENDENT)


def test_equal_class_counts_without_a_config_are_refused(tmp_path):
    path, _ = save_marked(tmp_path / "dap.pth", num_classes=9, kind="raw")
    alive = tiny_model("faster-rcnn", 9)  # other living objects must not matter
    detector = build(alive)

    with pytest.raises(ValueError, match=r"dap\.pth has no config.*model_cfg=CONFIG.*--config"):
        PretrainedDetector(path)(detector)


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_show_category_dependent_layers_without_a_config(tmp_path, log, family):
    path, weights = save_marked(tmp_path / "dap.pth", family, num_classes=4, kind="raw")
    detector = build(tiny_model(family, 9))

    report = PretrainedDetector(path)(detector)

    dependent = category_dependent_parameters(tiny_model(family, 9))
    assert set(report.category_dependent) == dependent
    assert_moved(detector.state_dict(), weights, dependent)
    assert "no config found" in log()


@pytest.mark.parametrize("changes", [{"roi_feat_size": 5}, {"fc_out_channels": 32}])
def test_other_shape_differences_do_not_show_the_categories(tmp_path, changes):
    """Equal class counts, other widths: taken for class counts, the class layers would move."""
    changes = {f"roi_head.bbox_head.{key}": value for key, value in changes.items()}
    path, _ = save_marked(tmp_path / "dap.pth", num_classes=8, kind="raw")
    detector = build(tiny_model("faster-rcnn", 8, **changes))

    with pytest.raises(ValueError, match="no shape shows another class count"):
        PretrainedDetector(path, allow_missing="roi_head.bbox_head")(detector)


def test_config_of_the_checkpoint_that_cannot_be_built(tmp_path, log):
    model_cfg = tiny_model("faster-rcnn", 4)
    detector = mark(build(copy.deepcopy(model_cfg)))
    model_cfg.neck.type = "NeckOfAnotherProject"
    path = save_mmengine(tmp_path / "dap.pth", detector, model_cfg)
    target = initialised(tiny_model("faster-rcnn", 9), path)

    assert "dap.pth: the detector of its config cannot be built here" in log()
    assert "NeckOfAnotherProject" in log()
    assert_moved(target.state_dict(), detector.state_dict(), FASTER_RCNN_DEPENDENT)
    with pytest.raises(ValueError, match=r"cannot be built here .*NeckOfAnotherProject") as error:
        initialised(tiny_model("faster-rcnn", 4), path)
    assert "has no config" not in str(error.value)


def test_category_dependent_in_the_source_alone(tmp_path):
    """Class-specific regression in the source, agnostic in the target."""
    path, _ = save_marked(tmp_path / "dap.pth", num_classes=4)

    detector = initialised(tiny_model("faster-rcnn-agnostic", 4), path)

    assert detector.state_dict()["roi_head.bbox_head.fc_reg.weight"].abs().max() < 10
    assert detector.state_dict()["roi_head.bbox_head.shared_fcs.0.weight"].min() >= 10


def test_other_shapes_are_missing_and_named(tmp_path, log):
    path, weights = save_marked(tmp_path / "dap.pth", "faster-rcnn")
    model_cfg = tiny_model("faster-rcnn", 4, **{"roi_head.bbox_head.roi_feat_size": 5})

    detector = initialised(model_cfg, path)

    name = "roi_head.bbox_head.shared_fcs.0.weight"
    assert detector.state_dict()[name].abs().max() < 10
    assert f"missing, since of another shape: {name} (16, 392) in place of (16, 200)" in log()
    assert_moved(detector.state_dict(), weights, {*FASTER_RCNN_DEPENDENT, name})


def test_names_that_mmdet_converts(tmp_path):
    """mmdet calls the head of a single RPN bbox_head and renames it for a two-stage detector."""
    path, weights = save_marked(tmp_path / "rpn.pth")
    weights = {n: v for n, v in weights.items() if not n.startswith("roi_head.")}
    torch.save({n.replace("rpn_head.", "bbox_head."): v for n, v in weights.items()}, path)

    model_cfg = tiny_model("faster-rcnn", 4)
    detector = initialised(model_cfg, path, allow_missing="roi_head.bbox_head", model_cfg=model_cfg)

    assert torch.equal(detector.rpn_head.rpn_conv.weight, weights["rpn_head.rpn_conv.weight"])


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
