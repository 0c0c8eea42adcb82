"""Configs that tools/new_config.py writes, loaded again, and arguments that it refuses."""

import json

import pytest
from mmengine.config import Config

from dap.new_config import new_configs
from dap.new_config.backbone import backbone_of
from dap.new_config.configs import Plan, finetuning
from dap.new_config.targets import read_target
from dap.new_config.trees import plain
from dap.new_config.zoo import find_detector
from dap.store.masks import counts_of
from dap.testing import make_coco, make_voc
from tests.support.tiny_recipes import with_outlines


def test_data_without_masks_does_not_train_them(tmp_path):
    boxes = with_outlines(make_coco(tmp_path / "boxes", 3))
    data = make_coco(tmp_path / "data", 3)

    with pytest.raises(ValueError, match=r"data.*: rtmdet-ins_tiny is trained on masks, but not"):
        new_configs(
            "rtmdet-ins_tiny_8xb32-300e_coco",
            boxes,
            data,
            out=tmp_path / "configs",
            work_dirs=str(tmp_path / "work_dirs"),
        )

    written = Config.fromfile(tmp_path / "configs" / "pretrain_rtmdet-ins_tiny.py")
    loaders = [s for s in written.train_dataloader.dataset.pipeline if "Load" in s["type"]]
    assert loaders[1] == {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}


@pytest.mark.parametrize("polygons", [True, False])
def test_masks_of_the_data_are_loaded_as_they_are(tmp_path, polygons):
    """Polygons by the recipe's own pipeline, run-length encoded ones as bitmaps."""
    data = with_outlines(make_coco(tmp_path / "data", 3))
    if not polygons:
        content = json.loads(data.read_text())
        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        for item in content["annotations"]:
            size_hw = sizes[item["image_id"]]
            counts = counts_of(item["segmentation"], size_hw)
            item["segmentation"] = {"size": [*size_hw], "counts": counts}
        data.write_text(json.dumps(content))
    target = read_target(str(data), str(data), None, tmp_path)
    detector = find_detector("rtmdet-ins_tiny_8xb32-300e_coco")
    backbone = backbone_of(detector.config.model, None, None)

    values = finetuning(Plan(detector, backbone, "x", "work_dirs", None), target, 10).values

    edits = {name: value for name, value in values.items() if name.startswith("pipeline[")}
    bitmaps = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}
    assert edits == ({} if polygons else {"pipeline[1]": bitmaps})
    assert values["val_evaluator"]["metric"] == ["bbox", "segm"]


def differences(first, second, path=""):
    """Keys in which two configs differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() | second.keys()):
            yield from differences(first.get(key), second.get(key), f"{path}.{key}")
    elif first != second:
        yield path.removeprefix(".")


@pytest.mark.parametrize("name", ["mask-rcnn_r50_fpn_1x_coco", "rtmdet_tiny_8xb32-300e_coco"])
def test_twins_differ_in_the_initialisation_alone(tmp_path, data, name):
    recipe = new_configs(
        name, *data, data[1], tmp_path / "configs", work_dirs=str(tmp_path / "work_dirs")
    )

    cls, dap = map(Config.fromfile, recipe.finetune)
    pretrain = Config.fromfile(recipe.pretrain)
    assert set(differences(cls.to_dict(), dap.to_dict())) <= {
        "model.backbone.init_cfg",
        "model.init_cfg",
        "work_dir",
    }
    assert dap.model.init_cfg.checkpoint == f"{pretrain.work_dir}/iter_{pretrain.iterations}.pth"
    assert pretrain.model.backbone.init_cfg == cls.model.backbone.init_cfg
    assert cls.train_dataloader.dataset.metainfo.classes == ("cat", "dog")
    assert (pretrain.num_classes, cls.num_classes) == (3, 2)
    assert plain(cls.optim_wrapper) == plain(find_detector(name).config.optim_wrapper)
    assert pretrain.optim_wrapper == cls.optim_wrapper
    assert cls.test_dataloader.dataset == cls.val_dataloader.dataset
    assert cls.test_evaluator == cls.val_evaluator
    assert pretrain.default_hooks.checkpoint.max_keep_ckpts == 2  # one is removed before the next
    assert cls.default_hooks.checkpoint.max_keep_ckpts == 2
    hooks = [hook["type"] for hook in cls.custom_hooks]
    assert "PipelineSwitchHook" not in hooks  # of RTMDet: it waits for an epoch
    assert ("EMAHook" in hooks) == name.startswith("rtmdet")
    assert "dap.ResumedDataHook" in hooks
    lines = [len(path.read_text().splitlines()) for path in (recipe.pretrain, *recipe.finetune)]
    assert max(lines) <= 30
    assert lines[2] <= 10


def test_mask_head_is_new_in_the_finetuning(tmp_path, data):
    boxes, target = data
    args = ("mask-rcnn_r50_fpn_1x_coco", boxes, target, target, tmp_path / "configs")

    recipe = new_configs(*args, work_dirs=str(tmp_path / "work_dirs"))

    assert Config.fromfile(recipe.pretrain).model.roi_head.mask_head is None
    cls, dap = map(Config.fromfile, recipe.finetune)
    assert cls.model.roi_head.mask_head.num_classes == 2
    assert cls.val_evaluator.metric == ["bbox", "segm"]
    assert dap.model.init_cfg.allow_missing == "roi_head.mask_head"
    assert {name.split(".")[1] for name in recipe.report.missing} == {"mask_head"}
    assert len(recipe.report.loaded) == 344
    assert "mask head is not pre-trained" in recipe.notes[1]


def test_set_without_masks_gets_no_mask_head(tmp_path, data):
    target = make_coco(tmp_path / "plain", 6, ("cat", "dog"))
    recipe = new_configs(
        "mask-rcnn_r50_fpn_1x_coco", data[0], target, target, tmp_path / "configs",
        work_dirs=str(tmp_path / "work_dirs"),
    )  # fmt: skip

    cls = Config.fromfile(recipe.finetune[0])
    assert cls.model.roi_head.mask_head is None
    assert cls.val_evaluator.metric == "bbox"
    assert recipe.report.missing == ()


def test_validation_categories_are_brought_into_order(tmp_path, data, tiny_config):
    val = make_coco(tmp_path / "val", 4, ("dog", "cat"))
    recipe = new_configs(
        tiny_config, data[0], data[1], val, tmp_path / "configs",
        work_dirs=str(tmp_path / "work_dirs"),
    )  # fmt: skip

    cls = Config.fromfile(recipe.finetune[0])
    assert cls.train_dataloader.dataset.ann_file == str(data[1])
    written = Config.fromfile(cls.val_dataloader.dataset.ann_file)
    assert [category["name"] for category in written.categories] == ["cat", "dog"]
    other = make_coco(tmp_path / "other", 4, ("dog", "cow"))
    with pytest.raises(ValueError, match=r"categories \['cow'\] are not among"):
        new_configs(
            tiny_config, data[0], data[1], other, tmp_path / "b",
            work_dirs=str(tmp_path / "work_dirs"),
        )  # fmt: skip


def test_a_fifth_is_held_out_where_there_is_no_validation(tmp_path, data, tiny_config):
    voc = make_voc(tmp_path / "voc", {"train": 11})
    recipe = new_configs(
        tiny_config, data[0], voc, None, tmp_path / "configs",
        work_dirs=str(tmp_path / "work_dirs"),
    )  # fmt: skip

    cls = Config.fromfile(recipe.finetune[0])
    files = [
        Config.fromfile(cls[f"{part}_dataloader"].dataset.ann_file) for part in ("train", "val")
    ]
    assert [len(file.images) for file in files] == [9, 2]
    assert {i["id"] for i in files[0].images} & {i["id"] for i in files[1].images} == set()


def test_edited_config_is_not_overwritten(tmp_path, data, tiny_config):
    args = (tiny_config, data[0])
    options = {"out": tmp_path / "configs", "work_dirs": str(tmp_path / "work_dirs")}
    path = new_configs(*args, **options).pretrain
    new_configs(*args, **options)  # the same again
    path.write_text(path.read_text() + "\n# mine\n")

    with pytest.raises(FileExistsError, match="is there with other content"):
        new_configs(*args, **options)
    assert path.read_text().endswith("# mine\n")


def test_timm_backbone_with_the_neck_of_the_detector(tmp_path, data):
    recipe = new_configs(
        "retinanet_r50_fpn_1x_coco", *data, data[1], tmp_path / "configs",
        backbone="timm:tf_efficientnet_lite0", work_dirs=str(tmp_path / "work_dirs"),
    )  # fmt: skip

    assert recipe.pretrain.name == "pretrain_retinanet_r50_fpn_tf_efficientnet_lite0.py"
    model = Config.fromfile(recipe.pretrain).model
    assert model.neck.in_channels == [24, 40, 112, 320]
    assert model.backbone.out_indices == (1, 2, 3, 4)
    assert model.backbone.fixed_batch_norm
    assert model.data_preprocessor.bgr_to_rgb
    assert any(name.startswith("backbone.timm_model.blocks") for name in recipe.report.loaded)
    assert "from scratch" in recipe.notes[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:vit_tiny_patch16_224", "Choose a convolutional backbone"),
        ("timm:swin_tiny_patch4_window7_224", "Choose a convolutional backbone"),
        ("timm:convnext_tinny", "Models with such names: convnext_atto"),
        ("resnet50", "expected timm:NAME"),
    ],
)
def test_backbones_that_no_neck_takes(tmp_path, data, name, message):
    with pytest.raises(ValueError, match=message):
        new_configs("retinanet_r50_fpn_1x_coco", data[0], out=tmp_path, backbone=name)


def test_missing_weights_are_refused(tmp_path, data):
    for backbone in (None, "timm:convnext_atto"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            new_configs(
                "retinanet_r50_fpn_1x_coco", data[0], out=tmp_path, backbone=backbone,
                weights="nowhere.pth",
            )  # fmt: skip


def test_missing_boxes_or_images_are_refused(tmp_path, data):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; expected a folder"):
        new_configs("retinanet_r50_fpn_1x_coco", tmp_path / "nowhere", out=tmp_path)
    with pytest.raises(ValueError, match=r"first image, .* does not exist; give the folder"):
        new_configs(
            "retinanet_r50_fpn_1x_coco", data[0], out=tmp_path, images=tmp_path,
            work_dirs=str(tmp_path),
        )  # fmt: skip


@pytest.mark.parametrize("argument", ["iterations", "finetune_iterations"])
def test_too_few_iterations(tmp_path, data, argument):
    with pytest.raises(ValueError, match=f"{argument}: found 9, expected 10 or more"):
        new_configs("retinanet_r50_fpn_1x_coco", data[0], out=tmp_path, **{argument: 9})


def test_weights_of_a_classifier(tmp_path, data):
    import torch

    torch.save({"state_dict": {"backbone.conv1.weight": torch.ones(1)}}, tmp_path / "cls.pth")
    recipe = new_configs(
        "retinanet_r50_fpn_1x_coco", data[0], out=tmp_path / "configs",
        weights=tmp_path / "cls.pth", work_dirs=str(tmp_path / "work_dirs"),
    )  # fmt: skip

    assert Config.fromfile(recipe.pretrain).model.backbone.init_cfg == {
        "type": "Pretrained",
        "checkpoint": str(tmp_path / "cls.pth"),
        "prefix": "backbone.",
    }
