"""Category-dependent parameters by construction: mmdet's stock configs, nothing tiny."""

import copy
import logging
import re

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import nn

from dap.transfer import category_dependent_parameters
from dap.transfer.category_dependent import _build_without_weights, _buildable, state_shapes
from tests.support.tiny_detectors import FAMILIES, MMDET_CONFIGS, build, tiny_model

FC_CLS, FC_REG = "roi_head.bbox_head.fc_cls", "roi_head.bbox_head.fc_reg"
LOGITS = "roi_head.mask_head.conv_logits"
# As mmdet's constructors say; N stands for the numbers of layers, weight and bias are left off.
STOCK = {
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py": {FC_CLS, FC_REG},
    "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": {FC_CLS, FC_REG, LOGITS},
    "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py": {"roi_head.bbox_head.N.fc_cls"},
    "cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py": {FC_CLS, FC_REG},
    "retinanet/retinanet_r50_fpn_1x_coco.py": {"bbox_head.retina_cls"},
    "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py": {"bbox_head.conv_cls"},
    "yolox/yolox_s_8xb8-300e_coco.py": {"bbox_head.multi_level_conv_cls.N"},
    "ssd/ssd300_coco.py": {"bbox_head.cls_convs.N.N"},
    "detr/detr_r50_8xb2-150e_coco.py": {"bbox_head.fc_cls"},
    "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py": {"bbox_head.cls_branches.N"},
    "dino/dino-4scale_r50_8xb2-12e_coco.py": {
        "bbox_head.cls_branches.N",
        "dn_query_generator.label_embedding",
    },
    "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py": {
        FC_CLS,
        FC_REG,
        LOGITS,
        "semantic_head.conv_logits",
    },
    "mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py": {"panoptic_head.cls_embed"},
    "seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py": {
        FC_CLS,
        FC_REG,
        LOGITS,
        "roi_head.bbox_head.loss_cls.cum_samples",
    },
    # constructors that read values back or ask for a process group
    "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py": {FC_CLS, FC_REG, LOGITS},
    "convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py": {FC_CLS, FC_REG, LOGITS},
    "simple_copy_paste/mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_32xb2-ssj-90k_coco.py": {
        FC_CLS,
        FC_REG,
        LOGITS,
    },
    "rpn/rpn_r50_fpn_1x_coco.py": set(),
}


def layers(names):
    """Take weight and bias off names, and put N for numbers."""
    return {re.sub(r"\.\d+", ".N", re.sub(r"\.(weight|bias)$", "", name)) for name in names}


@pytest.mark.parametrize("file", STOCK)
def test_stock_config(file):
    model = Config.fromfile(MMDET_CONFIGS / file).model

    assert layers(category_dependent_parameters(model)) == STOCK[file]


def test_names_are_the_detectors_own():
    assert category_dependent_parameters(tiny_model("faster-rcnn", 4)) == {
        f"{FC_CLS}.weight",
        f"{FC_CLS}.bias",
        f"{FC_REG}.weight",
        f"{FC_REG}.bias",
    }


@pytest.mark.parametrize("num_classes", [1, 4, 16])
def test_agnostic_regression_is_not_dependent(num_classes):
    model = tiny_model("faster-rcnn-agnostic", num_classes)

    assert layers(category_dependent_parameters(model)) == {FC_CLS}


def test_all_stages_of_a_cascade():
    names = category_dependent_parameters(tiny_model("cascade-rcnn", 4))

    assert {name for name in names if name.endswith("weight")} == {
        f"roi_head.bbox_head.{stage}.fc_cls.weight" for stage in range(3)
    }


def test_class_count_left_to_the_constructor():
    model = tiny_model("faster-rcnn", 4)
    del model.roi_head.bbox_head["num_classes"]  # 80 by default

    assert layers(category_dependent_parameters(model)) == {FC_CLS, FC_REG}


def test_plain_dict_and_modules_of_another_package():
    model = {
        "type": "RetinaNet",
        "backbone": {
            "type": "mmpretrain.ResNet",
            "depth": 18,
            "stem_channels": 4,
            "base_channels": 4,
            "out_indices": (0, 1, 2, 3),
            "init_cfg": {"type": "Pretrained", "checkpoint": "https://invalid./resnet18.pth"},
        },
        "neck": {
            "type": "FPN",
            "in_channels": [4, 8, 16, 32],
            "out_channels": 8,
            "num_outs": 5,
        },
        "bbox_head": {
            "type": "RetinaHead",
            "num_classes": 3,
            "in_channels": 8,
            "feat_channels": 8,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "octave_base_scale": 4,
                "scales_per_octave": 3,
                "ratios": [0.5, 1.0, 2.0],
                "strides": [8, 16, 32, 64, 128],
            },
        },
    }

    assert layers(category_dependent_parameters(model)) == {"bbox_head.retina_cls"}


@pytest.mark.parametrize("family", [*FAMILIES, "detr"])
def test_shapes_are_those_of_the_real_detector(family):
    if family == "detr":
        model = Config.fromfile(MMDET_CONFIGS / "detr/detr_r50_8xb2-150e_coco.py").model
    else:
        model = tiny_model(family, 4)
    before = state_shapes(model)
    real = {name: tuple(value.shape) for name, value in build(model).state_dict().items()}

    assert before == real
    # building has written into the config; some detectors refuse to be built from it again
    assert state_shapes(model) == real


def test_new_style_config_with_classes(tmp_path):
    """Types of a new-style config are classes, imported when they are asked for."""
    from mmdet.models import RetinaHead

    model = tiny_model("retinanet", 4)
    text = Config({"model": model}).pretty_text.replace("'RetinaHead'", "RetinaHead")
    (tmp_path / "config.py").write_text(f"from mmdet.models import RetinaHead\n{text}")
    model = Config.fromfile(tmp_path / "config.py").model

    assert model.bbox_head.type is RetinaHead
    assert layers(category_dependent_parameters(model)) == {"bbox_head.retina_cls"}


def test_backbones_with_drop_path_need_no_memory():
    from mmdet.registry import MODELS

    model = Config.fromfile(MMDET_CONFIGS / "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py").model
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = _build_without_weights(_buildable(model), MODELS)

    assert {parameter.device.type for parameter in detector.parameters()} == {"meta"}


class ReadsBack(nn.Module):
    """A backbone whose constructor needs values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, int(torch.full((2,), 3.0).sum().item()))


def test_constructor_that_reads_values_is_built_on_the_cpu():
    from mmdet.registry import MODELS

    MODELS.register_module(module=ReadsBack)
    model = tiny_model("retinanet", 4)
    model.backbone = ConfigDict(type="ReadsBack")
    try:
        assert state_shapes(model)["backbone.layer.weight"] == (6, 2)
        assert layers(category_dependent_parameters(model)) == {"bbox_head.retina_cls"}
    finally:
        MODELS.module_dict.pop("ReadsBack")


def test_nothing_of_the_caller_changes(log):
    model = tiny_model("dino", 4)
    before = copy.deepcopy(model)
    logger = MMLogger.get_current_instance()
    logger.setLevel(logging.DEBUG)
    DefaultScope.get_instance("callers", scope_name="mmpretrain")
    torch.manual_seed(5)
    state = torch.get_rng_state()

    category_dependent_parameters(model)

    assert model == before
    assert logger.level == logging.DEBUG
    assert log() == ""
    assert DefaultScope.get_current_instance().scope_name == "mmpretrain"
    assert torch.equal(torch.get_rng_state(), state)


def test_whole_config_is_refused():
    with pytest.raises(ValueError, match=r"found keys \['model', 'optimizer'\]; pass config.model"):
        category_dependent_parameters({"model": {"type": "RetinaNet"}, "optimizer": {}})


def test_unknown_type_is_named():
    model = tiny_model("retinanet", 4)
    model.neck.type = "NoSuchNeck"

    with pytest.raises(KeyError, match="NoSuchNeck"):
        category_dependent_parameters(model)
