"""Changes to the models of MMDetection's recipes: class counts, masks, batch norm."""

import pytest

from dap.new_config.code import config_text
from dap.new_config.model import class_counts, fixed_batch_norm, without_masks
from tests.support.tiny_recipes import config_of


def counted(name, classes=7):
    """Class counts of a model after the changes, by path, with the list expressions evaluated."""
    recipe = config_of(name)
    scope = {"_base_": recipe, "num_classes": classes, **recipe.to_dict()}
    exec(config_text("", "", {"model": class_counts(recipe)}, {}).split("\n", 2)[2], scope)
    return scope["model"]


def test_class_count_of_one_stage():
    assert counted("retinanet_r50_fpn_1x_coco") == {"bbox_head": {"num_classes": 7}}
    assert counted("dino-4scale_r50_8xb2-12e_coco") == {"bbox_head": {"num_classes": 7}}


def test_class_counts_of_mask_heads():
    assert counted("mask-rcnn_r50_fpn_1x_coco") == {
        "roi_head": {"bbox_head": {"num_classes": 7}, "mask_head": {"num_classes": 7}}
    }


@pytest.mark.parametrize(
    ("name", "stages"), [("cascade-rcnn_r50_fpn_1x_coco", 3), ("sparse-rcnn_r50_fpn_1x_coco", 6)]
)
def test_class_counts_of_all_stages(name, stages):
    heads = counted(name)["roi_head"]["bbox_head"]
    recipe = config_of(name).model.roi_head.bbox_head

    assert [head["num_classes"] for head in heads] == [7] * stages
    rest = [{k: v for k, v in head.items() if k != "num_classes"} for head in heads]
    assert rest == [{k: v for k, v in head.items() if k != "num_classes"} for head in recipe]


def test_class_counts_deep_in_a_list():
    """Seesaw loss counts classes in each stage's loss too."""
    heads = counted("cascade-mask-rcnn_r101_fpn_seesaw-loss_random-ms-2x_lvis-v1")["roi_head"][
        "bbox_head"
    ]

    assert [(h["num_classes"], h["loss_cls"]["num_classes"]) for h in heads] == [(7, 7)] * 3


def test_class_count_that_the_config_leaves_out():
    recipe = config_of("retinanet_r50_fpn_1x_coco")
    del recipe.model.bbox_head["num_classes"]
    recipe.model.bbox_head.type = "SSDHead"  # 80 by default

    assert class_counts(recipe) == {"bbox_head": {"num_classes": "num_classes"}}


def test_rpn_keeps_its_one_class():
    changes = counted("faster-rcnn_r50_fpn_fcos-rpn_1x_coco")  # num_classes=1 in the rpn_head

    assert changes == {"roi_head": {"bbox_head": {"num_classes": 7}}}


def test_mask_heads_are_removed():
    assert without_masks(config_of("mask-rcnn_r50_fpn_1x_coco").model) == {
        "roi_head": {"mask_head": None, "mask_roi_extractor": None}
    }
    assert without_masks(config_of("faster-rcnn_r50_fpn_1x_coco").model) == {}
    assert without_masks(config_of("rtmdet_s_8xb32-300e_coco").model) == {}


@pytest.mark.parametrize(
    ("name", "is_fixed"),
    [
        ("faster-rcnn_r50_fpn_1x_coco", True),
        ("retinanet_r50_fpn_1x_coco", True),
        ("detr_r50_8xb2-150e_coco", False),  # fixed already
        ("rtmdet_tiny_8xb32-300e_coco", False),  # SyncBN that trains
        ("retinanet_swin-t-p4-w7_fpn_1x_coco", False),
        ("faster-rcnn_r50-scratch_fpn_gn-all_6x_coco", False),
    ],
)
def test_batch_norm_is_fixed_where_its_statistics_are(name, is_fixed):
    changes = fixed_batch_norm(config_of(name).model)

    assert changes == ({"backbone": {"norm_cfg": {"requires_grad": False}}} if is_fixed else {})
