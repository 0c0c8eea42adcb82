"""Parts of a detector that move, and parts that are left out on purpose."""

import pytest
import torch
from safetensors import safe_open

from dap.transfer import PretrainedDetector, extract_detector
from tests.support.tiny_detectors import build, initialised, save_marked, tiny_model, with_init_cfg

BOX_HEAD = "roi_head.bbox_head."
TO_RPN = ("backbone", "neck", "rpn_head")


@pytest.fixture
def source(tmp_path):
    """Write a checkpoint, and give its path and its weights."""
    return save_marked(tmp_path / "dap.pth")


def init(checkpoint, **kwargs):
    return initialised(tiny_model("faster-rcnn", 4), checkpoint, **kwargs)


def assert_only_the_box_head_is_fresh(detector, weights):
    for name, value in detector.state_dict().items():
        if name.startswith(BOX_HEAD):
            assert value.abs().max() < 10, name
        else:
            assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize(
    "chosen",
    [
        {"parts": TO_RPN},
        {"parts": list(TO_RPN)},
        {"exclude": ("roi_head.bbox_head",)},
        {"exclude": "roi_head.bbox_head."},
        {"exclude": "roi_head"},
        {"parts": (*TO_RPN, "roi_head"), "exclude": "roi_head.bbox_head"},
    ],
)
def test_box_head_stays_behind(source, chosen):
    path, weights = source

    assert_only_the_box_head_is_fresh(init(path, **chosen), weights)


def test_one_part_and_a_module_inside_of_another(source):
    path, _ = source

    state = init(path, parts=("neck", "backbone.layer1")).state_dict()

    for name, value in state.items():
        moved = name.startswith(("neck.", "backbone.layer1."))
        if value.is_floating_point():
            assert (value.min() >= 10) == moved, name


def test_table_shows_what_is_left_out(source, log):
    path, weights = source

    init(path, exclude="roi_head.bbox_head")

    lines = [line.split() for line in log().splitlines()]
    columns = ["module", "loaded", "category-dependent", "missing", "unexpected", "left-out"]
    assert columns in lines
    assert ["rpn_head", "6", "0", "0", "0", "0"] in lines
    assert ["roi_head.bbox_head", "0", "0", "0", "0", "8"] in lines
    assert ["total", str(len(weights) - 8), "0", "0", "0", "8"] in lines
    assert f"left out on purpose: {BOX_HEAD}fc_cls.weight, " in log()
    assert "missing:" not in log()


def test_checkpoint_may_lack_what_is_left_out(source, log):
    path, weights = source
    torch.save({n: v for n, v in weights.items() if not n.startswith("roi_head.")}, path)

    detector = init(path, exclude="roi_head", model_cfg=tiny_model("faster-rcnn", 4))

    assert_only_the_box_head_is_fresh(detector, weights)
    assert "missing:" not in log()


def test_names_that_mmdet_converts_are_left_out_too(source):
    """mmdet would rename bbox_head to rpn_head and load it after all."""
    path, weights = source
    torch.save({n.replace("rpn_head.", "bbox_head."): v for n, v in weights.items()}, path)
    model_cfg = tiny_model("faster-rcnn", 4)

    report = PretrainedDetector(path, model_cfg=model_cfg, exclude="rpn_head")(build(model_cfg))

    assert not [name for name in report.loaded if name.startswith("rpn_head.")]
    detector = init(path, model_cfg=model_cfg, exclude="rpn_head")
    assert detector.rpn_head.rpn_conv.weight.abs().max() < 10


@pytest.mark.parametrize("left_out", ["backbone", "backbone.layer4"])
def test_backbone_that_is_left_out_reads_its_own_checkpoint(source, tmp_path, left_out):
    path, weights = source
    backbone = {n: v for n, v in weights.items() if n.startswith("backbone.")}
    backbone = {n.removeprefix("backbone."): v + 5 for n, v in backbone.items()}
    torch.save(backbone, tmp_path / "backbone.pth")
    model_cfg = tiny_model("faster-rcnn", 4)
    own = {"type": "Pretrained", "checkpoint": str(tmp_path / "backbone.pth")}
    model_cfg.backbone.init_cfg = own
    detector = build(with_init_cfg(model_cfg, checkpoint=path, exclude=left_out))

    detector.init_weights()

    assert detector.backbone.layer4[0].conv1.weight.min() >= 15
    assert (detector.backbone.conv1.weight.min() >= 15) == (left_out == "backbone")
    assert detector.neck.fpn_convs[0].conv.weight.max() < 15


@pytest.mark.parametrize("argument", ["parts", "exclude"])
def test_unknown_name_lists_the_parts_of_the_detector(source, argument):
    path, _ = source

    with pytest.raises(ValueError, match=rf"{argument}: .*'bbox_head'; expected") as error:
        init(path, **{argument: ("bbox_head",)})

    assert "backbone, neck, rpn_head, roi_head.bbox_head" in str(error.value)


def test_nothing_is_left_to_load(source):
    path, _ = source

    with pytest.raises(ValueError, match="parts is empty"):
        init(path, parts=())
    with pytest.raises(ValueError, match=r"parts=.* and exclude=\('neck',\) leave nothing"):
        init(path, parts="neck", exclude="neck")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("chosen", [{"parts": TO_RPN}, {"exclude": ["roi_head.bbox_head"]}])
def test_extracted_parts_need_no_options_afterwards(source, tmp_path, log, suffix, chosen):
    path, weights = source

    extracted = extract_detector(path, tmp_path / f"out{suffix}", **chosen)

    if suffix == ".pth":
        names = torch.load(extracted, weights_only=True).keys()
    else:
        with safe_open(extracted, "pt") as file:
            names = set(file.keys())
    assert names == {name for name in weights if not name.startswith(BOX_HEAD)}
    assert_only_the_box_head_is_fresh(init(extracted), weights)
    assert "missing:" not in log()
    again = extract_detector(extracted, tmp_path / f"again/out{suffix}")
    assert again.read_bytes() == extracted.read_bytes()


def test_extracting_an_unknown_part_lists_those_of_the_checkpoint(source, tmp_path):
    path, _ = source

    with pytest.raises(ValueError, match=r"exclude: .*dap\.pth has no weights in 'head'") as error:
        extract_detector(path, tmp_path / "out", exclude="head")

    assert "backbone, neck, rpn_head, roi_head.bbox_head" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_command_line_takes_parts_and_exclude(source, tmp_path, run_here):
    path, _ = source
    options = ["--parts", *TO_RPN, "--exclude", "backbone.layer4", "rpn_head"]

    result = run_here("extract_detector", path, tmp_path / "out", *options)

    assert result.returncode == 0, result.stderr
    written = torch.load(result.stdout.splitlines()[-1], weights_only=True)
    tops = {".".join(name.split(".")[:2]) for name in written}
    assert {"backbone.layer3", "neck.fpn_convs"} <= tops
    assert not {top for top in tops if top.startswith(("rpn_head", "roi_head", "backbone.layer4"))}
