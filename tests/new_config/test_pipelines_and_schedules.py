"""Pipelines and schedules made of those of MMDetection's recipes."""

import pytest

from dap.new_config.pipelines import boxes_alone, masks_as_bitmaps, multi_scale, train_pipeline
from dap.new_config.pipelines import test_pipeline as validation_pipeline
from dap.new_config.schedule import auto_scale_lr, scaled, warm_up
from tests.support.tiny_recipes import config_of

PAPER = {
    "type": "RandomChoiceResize",
    "scales": "[(1333, s) for s in (96, 160, 320, 640)]",
    "keep_ratio": True,
}


def scaled_pipeline(name):
    recipe = train_pipeline(config_of(name))
    return multi_scale(boxes_alone(recipe.outer or recipe.inner))


@pytest.mark.parametrize(
    "name",
    [
        "faster-rcnn_r50_fpn_1x_coco",  # Resize
        "mask-rcnn_r50_fpn_1x_coco",  # with masks
        "detr_r50_8xb2-150e_coco",  # RandomChoice of resizing and cropping
        "gfl_r50_fpn_ms-2x_coco",  # RandomResize between two scales
        "sparse-rcnn_r50_fpn_ms-480-800-3x_coco",  # RandomChoiceResize
    ],
)
def test_resizing_becomes_that_of_the_paper(name):
    steps, what = scaled_pipeline(name)

    kinds = [step["type"] for step in steps]
    assert sorted(kinds) == sorted(
        [
            "LoadImageFromFile",
            "LoadAnnotations",
            "RandomChoiceResize",
            "RandomFlip",
            "PackDetInputs",
        ]
    )
    assert PAPER in steps
    assert {"type": "LoadAnnotations", "with_bbox": True} in steps
    assert what == "short sides 96, 160, 320, 640, as in the paper"


def test_masks_are_loaded_as_bitmaps():
    """With poly2mask=False mmdet takes polygons only, and a store has none."""
    recipe = train_pipeline(config_of("rtmdet-ins_tiny_8xb32-300e_coco")).inner
    assert recipe[1]["poly2mask"] is False

    steps = masks_as_bitmaps(recipe)

    assert [step["type"] for step in steps] == [step["type"] for step in recipe]
    assert steps[1] == {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}
    assert steps[2:] == recipe[2:]


def test_mosaic_stays_and_images_get_smaller():
    steps, what = scaled_pipeline("rtmdet_tiny_8xb32-300e_coco")
    recipe = train_pipeline(config_of("rtmdet_tiny_8xb32-300e_coco")).inner

    assert [step["type"] for step in steps] == [step["type"] for step in recipe]
    [resize] = [step for step in steps if step["type"] == "RandomResize"]
    assert resize == {
        "type": "RandomResize",
        "scale": (1280, 1280),
        "ratio_range": (0.15, 2.0),  # 96 / 640; the recipe has .5
        "keep_ratio": True,
    }
    assert "CachedMosaic" in what
    assert "0.15" in what


@pytest.mark.parametrize("name", ["yolox_s_8xb8-300e_coco", "rtmdet_l_8xb32-300e_coco"])
def test_pipelines_that_are_as_wide_stay(name):
    recipe = train_pipeline(config_of(name))

    assert scaled_pipeline(name)[0] == (recipe.outer or recipe.inner)


def test_fixed_size_stays():
    steps, what = scaled_pipeline("ssd300_coco")

    assert {"type": "Resize", "scale": (300, 300), "keep_ratio": False} in steps
    assert what.startswith("the recipe's pipeline")


def test_data_sets_in_wrappers():
    wrapped = train_pipeline(config_of("yolox_s_8xb8-300e_coco"))
    assert [step["type"] for step in wrapped.inner] == ["LoadImageFromFile", "LoadAnnotations"]
    assert wrapped.path == "_base_.train_dataloader.dataset.dataset.pipeline"
    assert wrapped.outer[0]["type"] == "Mosaic"
    repeated = train_pipeline(config_of("centernet_r18_8xb16-crop512-140e_coco"))
    assert repeated.outer is None
    assert repeated.inner[3]["type"] == "RandomCenterCropPad"
    several = train_pipeline(config_of("faster-rcnn_r50_fpn_1x_voc0712"))
    assert several.path.endswith("dataset.dataset.datasets[0].pipeline")


def test_annotations_of_validation_are_loaded_behind_the_resizing():
    assert validation_pipeline(config_of("rtmdet_s_8xb32-300e_coco")) == (
        "_base_.val_dataloader.dataset.pipeline"
    )
    masks = validation_pipeline(config_of("mask-rcnn_r50_fpn_1x_coco"))
    assert [step["type"] for step in masks] == [
        "LoadImageFromFile",
        "Resize",
        "LoadAnnotations",
        "PackDetInputs",
    ]
    assert masks[2] == {"type": "LoadAnnotations", "with_bbox": True}


def test_schedule_in_shares_of_the_iterations():
    first, second = scaled(config_of("faster-rcnn_r50_fpn_1x_coco"), 3000)

    assert (first["type"], first["end"], first["by_epoch"]) == ("LinearLR", 300, False)
    assert second["milestones"] == ["iterations * 8 // 12", "iterations * 11 // 12"]
    assert (second["end"], second["by_epoch"]) == ("iterations", False)
    cosine = scaled(config_of("rtmdet_s_8xb32-300e_coco"), 30000)[1]
    assert cosine["begin"] == cosine["T_max"] == "iterations * 150 // 300"
    assert "convert_to_iter_based" not in cosine


def test_warm_up_is_the_recipes_or_a_tenth():
    [long] = warm_up(config_of("rtmdet_s_8xb32-300e_coco"), 100000)
    [short] = warm_up(config_of("rtmdet_s_8xb32-300e_coco"), 500)

    assert (long["end"], short["end"]) == (1000, 50)


def test_learning_rate_is_scaled_from_the_recipes_batch(tmp_path):
    assert auto_scale_lr(config_of("faster-rcnn_r50_fpn_1x_coco")) == {"enable": True}
    assert auto_scale_lr(config_of("yolox_s_8xb8-300e_coco")) == {"enable": True}
    recipe = config_of("rtmdet_s_8xb32-300e_coco")
    assert recipe.auto_scale_lr.base_batch_size == 16  # which is not the recipe's
    assert auto_scale_lr(recipe) == {"enable": True, "base_batch_size": 256}
