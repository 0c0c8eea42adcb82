"""Names of detectors, and detectors that boxes do not train."""

import pytest

from dap.new_config.model import check_detector
from dap.new_config.zoo import find_detector, zoo
from tests.support.tiny_recipes import config_of


@pytest.mark.parametrize(
    "name",
    [
        "rtmdet_tiny_8xb32-300e_coco",
        "rtmdet_tiny_8xb32-300e_coco.py",
        "mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco",
        "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    ],
)
def test_names_of_a_detector(name):
    found = find_detector(name)

    assert found.base == "mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py"
    assert found.name == "rtmdet_tiny"


def test_names_of_the_zoo_lose_their_schedule():
    names = {
        "faster-rcnn_r50_fpn_1x_coco": "faster-rcnn_r50_fpn",
        "yolox_s_8xb8-300e_coco": "yolox_s",
        "gfl_r50_fpn_ms-2x_coco": "gfl_r50_fpn",
        "mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco": "mask-rcnn_convnext-t-p4-w7_fpn",
    }
    assert {name: find_detector(name).name for name in names} == names


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("rtmdet_tiny", "Similar names: rtmdet_tiny_8xb32-300e_coco"),
        ("faster_rcnn_r50_fpn_1x_coco", "faster-rcnn_r50_fpn_1x_coco"),
        ("zzzzzzzz", "No name is similar"),
    ],
)
def test_unknown_name(name, near):
    with pytest.raises(ValueError, match=f"{name} is neither a file nor a config .*{near}"):
        find_detector(name)


def test_unreadable_and_other_configs(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("model = dict(")
    with pytest.raises(ValueError, match=r"own\.py: the config cannot be read \(SyntaxError"):
        find_detector(str(path))
    path.write_text("a = 1")
    with pytest.raises(ValueError, match="has no `model`"):
        find_detector(str(path))
    path.write_text("model = dict(type='X')")
    with pytest.raises(ValueError, match="has no train_dataloader"):
        find_detector(str(path))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("rpn_r50_fpn_1x_coco", "has no bbox_head"),
        ("rtmdet-ins_tiny_8xb32-300e_coco", "is trained on masks"),
        ("condinst_r50_fpn_ms-poly-90k_coco_instance", "is trained on masks"),
        ("fast-rcnn_r50_fpn_1x_coco", "needs files of proposals"),
        ("panoptic-fpn_r50_fpn_1x_coco", "does panoptic segmentation"),
        ("soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco", "wraps another detector"),
        ("glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco", "categories from texts"),
    ],
)
def test_detectors_that_need_more_than_boxes_are_refused(name, why):
    with pytest.raises(ValueError, match=f"{name}: .*{why}"):
        check_detector(config_of(name).model, name)


@pytest.mark.parametrize(
    "name", ["rtmdet-ins_tiny_8xb32-300e_coco", "condinst_r50_fpn_ms-poly-90k_coco_instance"]
)
def test_detectors_of_masks_take_boxes_with_masks(name):
    check_detector(config_of(name).model, name, has_masks=True)


def test_every_detector_of_the_zoo_is_found():
    assert len(zoo()) > 600
    assert all(not path.startswith("_base_") for path in zoo())
