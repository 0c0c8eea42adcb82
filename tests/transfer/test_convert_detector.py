"""Detectors of torchvision and maskrcnn-benchmark: equal outputs, and names of the release."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from dap.transfer.convert_detector import convert_detector

SIZE_HW = (96, 160)


def build(done, **changes):
    """The detector of a converted checkpoint, with its weights."""
    register_all_modules()
    config = Config({"model": done.model})
    config.merge_from_dict(changes)
    detector = MODELS.build(config.model)
    checkpoint = torch.load(done.path, weights_only=True)
    detector.load_state_dict(checkpoint["state_dict"])
    return detector.eval()


@pytest.fixture(scope="module")
def vision():
    """torchvision's detector of 4 classes and the background, random in all its tensors."""
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif "cls_score" in name or "bbox_pred" in name or "cls_logits" in name:
            value.normal_(0, 0.05)
    return model.eval()


@pytest.fixture(scope="module")
def converted(vision, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision")
    torch.save(vision.state_dict(), folder / "vision.pth")
    return convert_detector(folder / "vision.pth", folder / "out.pth")


@pytest.fixture(scope="module")
def image():
    return torch.randint(0, 256, (3, *SIZE_HW), generator=torch.Generator().manual_seed(1))


def close(found, expected):
    assert found.shape == expected.shape
    scale = expected.abs().max()
    assert (found - expected).abs().max() <= 1e-4 * scale


PROPOSALS = torch.tensor(
    [[4.0, 8, 60, 70], [0, 0, 160, 96], [30.5, 20.25, 33, 90], [100, 2, 158, 44], [9, 9, 30, 25]]
)


@torch.no_grad()
def test_outputs_are_those_of_torchvision(vision, converted, image):
    """Of the RPN at each level, and for each region: scores, regressions, boxes after NMS."""
    rgb = image.float() / 255
    mean, std = (
        torch.tensor(v)[:, None, None]
        for v in (vision.transform.image_mean, vision.transform.image_std)
    )
    detector = build(converted)
    inputs = {"inputs": [image.flip(0).byte()], "data_samples": []}
    ours = detector.data_preprocessor({"inputs": inputs["inputs"]}, False)["inputs"]
    theirs = ((rgb - mean) / std)[None]
    close(ours, theirs)

    levels = vision.backbone(theirs)
    features = detector.extract_feat(ours)
    for mine, other in zip(features, levels.values(), strict=True):
        close(mine, other)
    scores, regressions = vision.rpn.head(list(levels.values()))
    our_scores, our_regressions = detector.rpn_head(features)
    for mine, other in zip([*our_scores, *our_regressions], [*scores, *regressions], strict=True):
        close(mine, other)

    pooled = vision.roi_heads.box_roi_pool(levels, [PROPOSALS], [SIZE_HW])
    logits, boxes = vision.roi_heads.box_predictor(vision.roi_heads.box_head(pooled))
    found = detector.roi_head._bbox_forward(features, bbox2roi([PROPOSALS]))
    close(found["cls_score"], logits.roll(-1, dims=1))
    close(found["bbox_pred"], boxes[:, 4:])

    after, after_scores, after_labels = vision.roi_heads.postprocess_detections(
        logits, boxes, [PROPOSALS], [SIZE_HW]
    )
    (result,) = detector.roi_head.bbox_head.predict_by_feat(
        rois=(bbox2roi([PROPOSALS]),),
        cls_scores=(found["cls_score"],),
        bbox_preds=(found["bbox_pred"],),
        batch_img_metas=[{"img_shape": SIZE_HW, "scale_factor": (1, 1)}],
        rcnn_test_cfg=detector.roi_head.test_cfg,
    )
    # torchvision also drops boxes of less than .01 px, of which there are none here.
    assert len(result) == len(after[0]) >= 5
    close(result.scores, after_scores[0])
    close(result.bboxes, after[0])
    assert (result.labels + 1).tolist() == after_labels[0].tolist()


def test_options_of_torchvision(converted):
    assert converted.options == {
        "model.backbone.depth": 50,
        "model.backbone.style": "pytorch",
        "model.data_preprocessor.mean": [123.675, 116.28, 103.53],
        "model.data_preprocessor.std": [58.395, 57.12, 57.375],
        "model.data_preprocessor.bgr_to_rgb": True,
        "model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio": 2,
        "model.roi_head.bbox_roi_extractor.roi_layer.aligned": False,
        "model.roi_head.bbox_head.reg_class_agnostic": False,
    }
    assert converted.model["roi_head"]["bbox_head"]["num_classes"] == 4


def release(
    blocks=(3, 4, 6, 3), classes=6, regressions=None, width=2, fpn=4, hidden=8, anchors=True
):
    """A checkpoint of maskrcnn-benchmark with the names of the release, narrow, random."""
    generator = torch.Generator().manual_seed(0)
    weights = {}

    def add(name, *shape, bias=True):
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) / 8
        if bias:
            weights[f"{name}.bias"] = torch.randn(shape[:1], generator=generator)

    def conv_bn(conv, norm, *shape):
        add(conv, *shape, bias=False)
        for end in ("weight", "bias", "running_mean"):
            weights[f"{norm}.{end}"] = torch.randn(shape[:1], generator=generator)
        weights[f"{norm}.running_var"] = torch.rand(shape[:1], generator=generator) + 0.5

    body = "backbone.body"
    conv_bn(f"{body}.stem.conv1", f"{body}.stem.bn1", width, 3, 7, 7)
    before = width
    for stage, count in enumerate(blocks, 1):
        inner = width * 2 ** (stage - 1)
        for block in range(count):
            name = f"{body}.layer{stage}.{block}"
            for i, (out, into, side) in enumerate(
                ((inner, before, 1), (inner, inner, 3), (4 * inner, inner, 1)), 1
            ):
                conv_bn(f"{name}.conv{i}", f"{name}.bn{i}", out, into, side, side)
            if block == 0:
                conv_bn(f"{name}.downsample.0", f"{name}.downsample.1", 4 * inner, before, 1, 1)
            before = 4 * inner
        add(f"backbone.fpn.fpn_inner{stage}", fpn, before, 1, 1)
        add(f"backbone.fpn.fpn_layer{stage}", fpn, fpn, 3, 3)
    add("rpn.head.conv", fpn, fpn, 3, 3)
    add("rpn.head.cls_logits", 3, fpn, 1, 1)
    add("rpn.head.bbox_pred", 12, fpn, 1, 1)
    add("roi_heads.box.feature_extractor.fc6", hidden, fpn * 49)
    add("roi_heads.box.feature_extractor.fc7", hidden, hidden)
    add("roi_heads.box.predictor.cls_score", classes + 1, hidden)
    add("roi_heads.box.predictor.bbox_pred", regressions or 4 * (classes + 1), hidden)
    if anchors:  # of maskrcnn-benchmark at stride 4: both ends inside, ratios .5, 1, 2
        corners = [[-22, -10, 25, 13], [-14, -14, 17, 17], [-10, -22, 13, 25]]
        weights["rpn.anchor_generator.cell_anchors.0"] = torch.tensor(corners).float()
    return weights


def save(path, weights):
    """As maskrcnn-benchmark saves them: below ``model``, beside the optimizer, parallel names."""
    below = {f"module.{name}": value for name, value in weights.items()}
    torch.save({"model": below, "optimizer": {}, "scheduler": {}, "iteration": 40038}, path)
    return path


@pytest.mark.parametrize(
    ("blocks", "depth", "classes"),
    [((3, 4, 6, 3), 50, 1000), ((3, 4, 23, 3), 101, 21841)],
)
def test_names_of_the_release(tmp_path, blocks, depth, classes):
    """1001 and 21842 rows of class scores, the background first."""
    weights = release(blocks, classes)
    done = convert_detector(save(tmp_path / "model_final.pth", weights), tmp_path / "out.pth")
    assert done.options["model.backbone.depth"] == depth
    assert done.options["model.backbone.style"] == "caffe"
    assert done.options["model.data_preprocessor.bgr_to_rgb"] is False
    assert done.options["model.data_preprocessor.mean"] == [102.9801, 115.9465, 122.7717]
    assert done.options["model.data_preprocessor.std"] == [1.0, 1.0, 1.0]
    assert done.model["roi_head"]["bbox_head"]["num_classes"] == classes
    state = build(done).state_dict()
    old = weights["roi_heads.box.predictor.cls_score.weight"]
    assert torch.equal(state["roi_head.bbox_head.fc_cls.weight"], torch.cat([old[1:], old[:1]]))
    assert torch.equal(
        state["roi_head.bbox_head.fc_reg.bias"],
        weights["roi_heads.box.predictor.bbox_pred.bias"][4:],
    )
    for ours, theirs in {
        "backbone.conv1": "backbone.body.stem.conv1",
        "backbone.layer3.5.conv2": "backbone.body.layer3.5.conv2",
        "backbone.layer1.0.downsample.0": "backbone.body.layer1.0.downsample.0",
        "neck.lateral_convs.0.conv": "backbone.fpn.fpn_inner1",
        "neck.fpn_convs.3.conv": "backbone.fpn.fpn_layer4",
        "rpn_head.rpn_conv": "rpn.head.conv",
        "rpn_head.rpn_cls": "rpn.head.cls_logits",
        "roi_head.bbox_head.shared_fcs.1": "roi_heads.box.feature_extractor.fc7",
    }.items():
        assert torch.equal(state[f"{ours}.weight"], weights[f"{theirs}.weight"]), ours


def test_imagenet_22k_of_the_release(tmp_path):
    """Stride in the 3x3, RGB; one regressor for all, with a row for the background before it."""
    weights = release(classes=7, regressions=8)
    done = convert_detector(
        save(tmp_path / "a.pth", weights), tmp_path / "out.pth", style="pytorch", pixels="rgb"
    )
    assert done.options["model.backbone.style"] == "pytorch"
    assert done.options["model.data_preprocessor.bgr_to_rgb"] is True
    assert done.options["model.roi_head.bbox_head.reg_class_agnostic"] is True
    state = build(done).state_dict()
    bias = weights["roi_heads.box.predictor.bbox_pred.bias"]
    assert torch.equal(state["roi_head.bbox_head.fc_reg.bias"], bias[4:])


def test_stride_is_where_it_is_said_to_be(tmp_path):
    source = save(tmp_path / "a.pth", release())
    strides = {}
    for style in ("caffe", "pytorch"):
        detector = build(convert_detector(source, tmp_path / f"{style}.pth", style=style))
        block = detector.backbone.layer2[0]
        strides[style] = (block.conv1.stride[0], block.conv2.stride[0])
    assert strides == {"caffe": (2, 1), "pytorch": (1, 2)}


def test_batch_norm_without_eps(tmp_path):
    """maskrcnn-benchmark adds nothing to a variance: (x - mean) / sqrt(var) * weight + bias."""
    weights = release()
    weights["backbone.body.stem.bn1.running_var"].fill_(1e-4)  # 1e-5 more would be 5 % less
    done = convert_detector(save(tmp_path / "a.pth", weights), tmp_path / "out.pth")
    x = torch.randn(1, 2, 5, 5)
    norm = {k: weights[f"backbone.body.stem.bn1.{k}"][:, None, None] for k in ("weight", "bias")}
    mean = weights["backbone.body.stem.bn1.running_mean"][:, None, None]
    with torch.no_grad():
        close(build(done).backbone.bn1(x), (x - mean) * 100 * norm["weight"] + norm["bias"])


@pytest.mark.parametrize("by_checkpoint", [True, False])
def test_order_of_anchors(tmp_path, by_checkpoint):
    """Anchors 2, .5, 1 in the checkpoint come to mmdet as .5, 1, 2, scores and regressions."""
    weights = release(anchors=by_checkpoint)
    old = {key: weights[f"rpn.head.{key}.bias"] for key in ("cls_logits", "bbox_pred")}
    turned = [2, 0, 1]
    for key, rows in (("cls_logits", 1), ("bbox_pred", 4)):
        for end in ("weight", "bias"):
            name = f"rpn.head.{key}.{end}"
            weights[name] = weights[name].unflatten(0, (3, rows))[turned].flatten(0, 1)
    settings = {}
    if by_checkpoint:
        name = "rpn.anchor_generator.cell_anchors.0"
        weights[name] = weights[name][turned]
    else:
        settings["ratios"] = [2, 0.5, 1]
    done = convert_detector(save(tmp_path / "a.pth", weights), tmp_path / "out.pth", **settings)
    state = build(done).state_dict()
    assert torch.equal(state["rpn_head.rpn_cls.bias"], old["cls_logits"])
    assert torch.equal(state["rpn_head.rpn_reg.bias"], old["bbox_pred"])


@pytest.mark.parametrize(
    ("background", "regressions", "kept"),
    [
        ("first", 28, slice(4, 28)),
        ("first", 24, slice(0, 24)),
        ("last", 28, slice(0, 24)),
        ("last", 24, slice(0, 24)),
        ("first", 8, slice(4, 8)),
        ("last", 8, slice(0, 4)),
        ("first", 4, slice(0, 4)),
    ],
)
def test_place_of_the_background(tmp_path, background, regressions, kept):
    weights = release(classes=6, regressions=regressions)
    source = save(tmp_path / "a.pth", weights)
    done = convert_detector(source, tmp_path / "out.pth", background=background)
    state = build(done).state_dict()
    bias = weights["roi_heads.box.predictor.cls_score.bias"]
    expected = bias.roll(-1) if background == "first" else bias
    assert torch.equal(state["roi_head.bbox_head.fc_cls.bias"], expected)
    reg = weights["roi_heads.box.predictor.bbox_pred.bias"]
    assert torch.equal(state["roi_head.bbox_head.fc_reg.bias"], reg[kept])


def test_older_names_of_torchvision(vision, converted, tmp_path):
    """Before 0.13: inner_blocks.0.weight and rpn.head.conv.weight."""
    older = {
        name.replace("conv.0.0.", "conv.")
        .replace("blocks.0.0", "blocks.0")
        .replace("blocks.1.0", "blocks.1")
        .replace("blocks.2.0", "blocks.2")
        .replace("blocks.3.0", "blocks.3"): value
        for name, value in vision.state_dict().items()
    }
    assert "rpn.head.conv.weight" in older
    torch.save(older, tmp_path / "a.pth")
    again = convert_detector(tmp_path / "a.pth", tmp_path / "out.pth")
    one, two = (
        torch.load(done.path, weights_only=True)["state_dict"] for done in (again, converted)
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_pretrained_detector_reads_it(tmp_path):
    """Into a detector of 3 classes: all moves but the layers of the categories."""
    done = convert_detector(save(tmp_path / "a.pth", release()), tmp_path / "out.pth")
    register_all_modules()
    config = Config({"model": done.model})
    config.merge_from_dict(
        {
            "model.roi_head.bbox_head.num_classes": 3,
            "model.init_cfg": {"type": "dap.PretrainedDetector", "checkpoint": str(done.path)},
        }
    )
    detector = MODELS.build(config.model)
    detector.init_weights()
    source = torch.load(done.path, weights_only=True)["state_dict"]
    fresh = {
        name
        for name, value in detector.state_dict().items()
        if value.shape != source[name].shape or not torch.equal(value, source[name])
    }
    assert fresh == {
        f"roi_head.bbox_head.{part}.{end}"
        for part in ("fc_cls", "fc_reg")
        for end in ("weight", "bias")
    }


BOX = "roi_heads.box.predictor"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (f"{BOX}.cls_score.bias", None, r"nothing for roi_head\.bbox_head\.fc_cls"),
        ("backbone.fpn.fpn_layer2.bias", None, r"1 tensors differ, such as neck\.fpn_convs\.1"),
        ("roi_heads.mask.predictor.x", torch.ones(2), r"1 tensors have no place.*mask"),
        ("rpn.head.cls_logits.weight", torch.ones(5, 4, 1, 1), r"rpn_cls has 5 channels"),
        (f"{BOX}.bbox_pred.bias", torch.ones(9), r"9 regressions for 7 class scores"),
        ("backbone.body.stem.bn1.bias", torch.tensor([1, float("nan")]), r"not finite"),
        ("backbone.body.stem.conv1.weight", None, r"is no Faster R-CNN of torchvision or"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path, name, value, message):
    weights = release()
    weights.pop(name, None)
    weights |= {} if value is None else {name: value}
    with pytest.raises(ValueError, match=message):
        convert_detector(save(tmp_path / "a.pth", weights), tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("settings", [{"style": "x"}, {"pixels": "hsv"}, {"background": "middle"}])
def test_unknown_settings_are_refused(tmp_path, settings):
    with pytest.raises(ValueError, match=rf"{next(iter(settings))}: expected one of"):
        convert_detector(tmp_path / "a.pth", tmp_path / "out.pth", **settings)


def test_other_kinds_of_files_are_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"suffix of out: expected one of '\.pth', found '\.safe"):
        convert_detector(tmp_path / "a.pth", tmp_path / "out.safetensors")


def test_other_anchors_are_refused(tmp_path):
    source = save(tmp_path / "a.pth", release())
    with pytest.raises(ValueError, match=r"ratios \[1, 1, 1\]; expected \[0\.5, 1\.0, 2\.0\]"):
        convert_detector(source, tmp_path / "out.pth", ratios=[1, 1, 1])


def test_tool(tmp_path, run_here):
    """What it prints is what a config takes."""
    save(tmp_path / "a.pth", release())
    done = run_here("convert_detector", tmp_path / "a.pth", tmp_path / "b.pth")
    assert done.returncode == 0, done.stderr
    first, *options = done.stdout.splitlines()
    assert first == f"{tmp_path / 'b.pth'}: Faster R-CNN with 6 classes. Use it with --cfg-options"
    assert "    model.data_preprocessor.mean=[102.9801,115.9465,122.7717]" in options
    assert "    model.backbone.style=caffe" in options
    (tmp_path / "a.pth").write_bytes(b"")
    done = run_here("convert_detector", tmp_path / "a.pth", tmp_path / "c.pth")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
