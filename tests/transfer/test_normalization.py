"""A warning where a detector gets images normalised unlike those of its pre-training."""

import copy

import pytest
import torch
from mmengine.config import Config

from dap.transfer import PretrainedDetector, extract_detector
from dap.transfer.normalization import normalization_of_config, normalization_of_detector
from tests.support.tiny_detectors import MMDET_CONFIGS, build, mark, save_mmengine, tiny_model

CAFFE = {"mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "bgr_to_rgb": False}
RAW = {"mean": None, "std": None, "bgr_to_rgb": False}


def target(**changes):
    return build(with_preprocessor(**changes))


def with_preprocessor(**changes):
    model_cfg = tiny_model("faster-rcnn", 3)
    model_cfg.data_preprocessor.update(changes)
    return model_cfg


def source(tmp_path, **changes):
    model_cfg = with_preprocessor(**changes)
    detector = mark(build(copy.deepcopy(model_cfg)))
    return save_mmengine(tmp_path / "dap.pth", detector, model_cfg)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (CAFFE, "BGR (channels as loaded), mean=[103.53, 116.28, 123.675], std=[1, 1, 1]"),
        ({"bgr_to_rgb": False}, "BGR (channels as loaded), mean=[123.675, 116.28, 103.53]"),
        ({"mean": [127.5] * 3}, "RGB (channels swapped), mean=[127.5, 127.5, 127.5]"),
        ({"std": [1.0] * 3}, "std=[1, 1, 1]"),
        (RAW, "BGR (channels as loaded), pixels as they are"),
    ],
)
def test_other_normalization_is_warned_of_in_either_direction(tmp_path, log, changes, words):
    stock = "RGB (channels swapped), mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]"

    PretrainedDetector(source(tmp_path, **changes))(target())

    assert "dap.pth was trained on images of" in log()
    assert words in log()
    assert f"this detector gets {stock}" in log()
    PretrainedDetector(source(tmp_path))(target(**changes))
    assert f"was trained on images of {stock}" in log()


@pytest.mark.parametrize(
    "changes", [{}, {"mean": (123.68, 116.28, 103.53)}, {"pad_size_divisor": 1}]
)
def test_same_normalization_is_silent(tmp_path, log, changes):
    PretrainedDetector(source(tmp_path, **changes))(target())

    assert "was trained on images" not in log()


def test_preprocessor_beside_the_model_counts(tmp_path, log):
    """As in mmpretrain's configs; the Runner puts it into the model."""
    model_cfg = with_preprocessor(**CAFFE)
    detector = mark(build(copy.deepcopy(model_cfg)))
    config = {"data_preprocessor": model_cfg.pop("data_preprocessor"), "model": model_cfg}
    text = Config({**config, "default_scope": "mmdet"}).pretty_text
    torch.save({"state_dict": detector.state_dict(), "meta": {"cfg": text}}, tmp_path / "a.pth")

    PretrainedDetector(tmp_path / "a.pth")(target())

    assert "a.pth was trained on images of BGR" in log()


def test_config_that_is_passed_counts(tmp_path, log):
    torch.save(mark(target()).state_dict(), tmp_path / "raw.pth")

    PretrainedDetector(tmp_path / "raw.pth", model_cfg=with_preprocessor(**CAFFE))(target())

    assert "raw.pth was trained on images of BGR" in log()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_extracted_file_remembers(tmp_path, log, suffix):
    path = extract_detector(source(tmp_path, **CAFFE), tmp_path / f"out{suffix}")
    again = extract_detector(path, tmp_path / f"again/out{suffix}")

    PretrainedDetector(again)(target(**CAFFE))
    assert "was trained on images" not in log()
    PretrainedDetector(again)(target())
    assert f"{again} was trained on images of BGR" in log()
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "file",
    [
        "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
        "faster_rcnn/faster-rcnn_r50-caffe_fpn_1x_coco.py",
        "yolox/yolox_tiny_8xb8-300e_coco.py",
        "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
        "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py",
    ],
)
def test_config_and_detector_say_the_same(file):
    model_cfg = Config.fromfile(MMDET_CONFIGS / file).model

    by_config = normalization_of_config(model_cfg)

    assert by_config.is_like(normalization_of_detector(build(copy.deepcopy(model_cfg))))


def test_config_without_any_preprocessor_says_nothing():
    assert normalization_of_config({"type": "RetinaNet"}) is None
