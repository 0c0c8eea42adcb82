"""Configs of detectors: read as data, or found among the living objects."""

import pytest
from mmengine.config import Config

from dap.transfer.model_configs import parse_model_config, read_model_config
from tests.support.tiny_detectors import MMDET_CONFIGS


@pytest.mark.parametrize(
    "file",
    [
        "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
        "dino/dino-5scale_swin-l_8xb2-12e_coco.py",
        "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",  # inf, loops, pre-trained URL
        "mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py",
    ],
)
@pytest.mark.usefixtures("formatted_configs")
def test_text_in_a_checkpoint_gives_the_config_back(file):
    config = Config.fromfile(MMDET_CONFIGS / file)

    parsed = parse_model_config(config.pretty_text)

    assert parsed.model == Config({"model": config.to_dict()["model"]}).model
    assert parsed.scope == "mmdet"


def test_new_style_config_names_its_classes(tmp_path):
    file = tmp_path / "config.py"
    file.write_text("from mmdet.models import RetinaNet\nmodel = dict(type=RetinaNet, neck=None)\n")

    parsed = parse_model_config(Config.fromfile(file).pretty_text)

    assert parsed.model == {"type": "mmdet.models.RetinaNet", "neck": None}


def test_values_that_pretty_text_writes():
    values = {"a": float("inf"), "b": -2.5, "c": {3: (1,), "x y": [None, True]}, "type": "A"}
    text = Config({"model": values, "default_scope": "mine"}).pretty_text

    assert parse_model_config(text) == (values, "mine")


@pytest.mark.parametrize(
    "text",
    [
        "import os\nmodel = os.mkdir(r'{}')",
        "model = dict(type=__import__('os').mkdir(r'{}'))",
        "model = dict(type='A', **__import__('os').mkdir(r'{}'))",
        "model = [print('x') for x in (1,)]",
        "model = (",
        "optimizer = dict(type='SGD')",
        "",
    ],
)
def test_text_is_never_executed(tmp_path, text):
    assert parse_model_config(text.format(tmp_path / "ran")) is None
    assert not (tmp_path / "ran").exists()


def test_read_from_file_whole_config_and_model():
    file = MMDET_CONFIGS / "retinanet/retinanet_r50_fpn_1x_coco.py"
    config = Config.fromfile(file)

    assert read_model_config(str(file)) == (config.model, "mmdet")
    assert read_model_config(config) == (config.model, "mmdet")
    assert read_model_config(config.model) == (config.model, "mmdet")
    assert read_model_config({"model": {"type": "A"}, "default_scope": "x"}) == ({"type": "A"}, "x")
    with pytest.raises(ValueError, match=r"no `model`; found keys \['lr'\]"):
        read_model_config({"lr": 3})
