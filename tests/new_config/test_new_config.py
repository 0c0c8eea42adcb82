"""What tools/new_config.py writes, part by part, against MMDetection's own recipes."""

import json

import pytest
from mmengine.config import Config
from own_detectors import make_data, with_outlines, write_own

from dap.new_config import new_configs
from dap.new_config.backbone import backbone_of
from dap.new_config.code import Code, config_text, one_line
from dap.new_config.configs import Plan, finetuning
from dap.new_config.model import check_detector, class_counts, fixed_batch_norm, without_masks
from dap.new_config.pipelines import (
    boxes_alone,
    edited,
    masks_as_bitmaps,
    multi_scale,
    train_pipeline,
)
from dap.new_config.pipelines import test_pipeline as validation_pipeline
from dap.new_config.schedule import auto_scale_lr, scaled, warm_up
from dap.new_config.targets import read_target
from dap.new_config.trees import plain
from dap.new_config.zoo import find_detector, zoo
from dap.store.masks import counts_of
from dap.testing import make_coco, make_voc

PAPER = {
    "type": "RandomChoiceResize",
    "scales": "[(1333, s) for s in (96, 160, 320, 640)]",
    "keep_ratio": True,
}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    return str(write_own(folder, "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


def config(name):
    return find_detector(name).config


def test_values_are_read_back_as_they_were():
    values = {
        "a": {"x": 1, "type": "ä", "deep": {"list": [1.5, None, True, float("inf")], "one": (1,)}},
        "b": [{"k": "v" * 30}] * 5,
        "c": {"not-a-name": 1, "class": 2},
        "d": Code("a['x'] + 1"),
    }
    text = config_text("Says what it is.", "base.py", values, {"b": "why", "d": "the sum"})

    read = {}
    exec(text, read)
    assert {name: read[name] for name in "abc"} == {name: values[name] for name in "abc"}
    assert read["d"] == 2
    assert "b = [  # why\n" in text
    assert "d = a['x'] + 1  # the sum\n" in text
    assert max(map(len, text.splitlines())) <= 100


def test_long_dicts_fill_their_lines():
    inner = {"first": "x" * 40, "second": "y" * 40, "steps": [{"a": "z" * 50}] * 2, "last": 1}
    text = config_text("", "", {"a": {"only": inner}}, {})

    assert text.splitlines()[2:] == [
        "a = dict(only=dict(",
        f'    first="{"x" * 40}",',
        f'    second="{"y" * 40}",',
        "    steps=[",
        f'        dict(a="{"z" * 50}"),',
        f'        dict(a="{"z" * 50}")],',
        "    last=1))",
    ]


def test_pipelines_are_written_as_edits():
    own = [{"type": "A"}, {"type": "B"}, {"type": "C"}]

    assert edited("steps", "_base_.own", own, own) == {}
    assert edited("steps", "_base_.own", own, [own[0], {"type": "D"}, own[2]]) == {
        "steps": "[*_base_.own]",
        "steps[1]": {"type": "D"},
    }
    assert edited("steps", "_base_.own", own, own[:2]) == {"steps": own[:2]}


def test_other_values_are_refused():
    with pytest.raises(TypeError, match="a config cannot hold"):
        one_line({1, 2})


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
def test_detectors_that_boxes_do_not_train(name, why):
    with pytest.raises(ValueError, match=f"{name}: .*{why}"):
        check_detector(config(name).model, name)


@pytest.mark.parametrize(
    "name", ["rtmdet-ins_tiny_8xb32-300e_coco", "condinst_r50_fpn_ms-poly-90k_coco_instance"]
)
def test_detectors_of_masks_take_boxes_with_masks(name):
    check_detector(config(name).model, name, has_masks=True)


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
    own = backbone_of(detector.config.model, None, None)

    values = finetuning(Plan(detector, own, "x", "work_dirs", None), target, 10).values

    edits = {name: value for name, value in values.items() if name.startswith("pipeline[")}
    bitmaps = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}
    assert edits == ({} if polygons else {"pipeline[1]": bitmaps})
    assert values["val_evaluator"]["metric"] == ["bbox", "segm"]


def counted(name, classes=7):
    """Class counts of a model after the changes, by path, with the list expressions evaluated."""
    own = config(name)
    scope = {"_base_": own, "num_classes": classes, **own.to_dict()}
    exec(config_text("", "", {"model": class_counts(own)}, {}).split("\n", 2)[2], scope)
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
    own = config(name).model.roi_head.bbox_head

    assert [head["num_classes"] for head in heads] == [7] * stages
    rest = [{k: v for k, v in head.items() if k != "num_classes"} for head in heads]
    assert rest == [{k: v for k, v in head.items() if k != "num_classes"} for head in own]


def test_class_counts_deep_in_a_list():
    """Seesaw loss counts classes in each stage's loss too."""
    heads = counted("cascade-mask-rcnn_r101_fpn_seesaw-loss_random-ms-2x_lvis-v1")["roi_head"][
        "bbox_head"
    ]

    assert [(h["num_classes"], h["loss_cls"]["num_classes"]) for h in heads] == [(7, 7)] * 3


def test_class_count_that_the_config_leaves_out():
    own = config("retinanet_r50_fpn_1x_coco")
    del own.model.bbox_head["num_classes"]
    own.model.bbox_head.type = "SSDHead"  # 80 by default

    assert class_counts(own) == {"bbox_head": {"num_classes": "num_classes"}}


def test_rpn_keeps_its_one_class():
    changes = counted("faster-rcnn_r50_fpn_fcos-rpn_1x_coco")  # num_classes=1 in the rpn_head

    assert changes == {"roi_head": {"bbox_head": {"num_classes": 7}}}


def test_mask_heads_go():
    assert without_masks(config("mask-rcnn_r50_fpn_1x_coco").model) == {
        "roi_head": {"mask_head": None, "mask_roi_extractor": None}
    }
    assert without_masks(config("faster-rcnn_r50_fpn_1x_coco").model) == {}
    assert without_masks(config("rtmdet_s_8xb32-300e_coco").model) == {}


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
    changes = fixed_batch_norm(config(name).model)

    assert changes == ({"backbone": {"norm_cfg": {"requires_grad": False}}} if is_fixed else {})


def scaled_pipeline(name):
    own = train_pipeline(config(name))
    return multi_scale(boxes_alone(own.outer or own.inner))


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
def test_resizing_becomes_the_papers(name):
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
    """A store has no polygons, which mmdet takes alone with poly2mask=False."""
    own = train_pipeline(config("rtmdet-ins_tiny_8xb32-300e_coco")).inner
    assert own[1]["poly2mask"] is False

    steps = masks_as_bitmaps(own)

    assert [step["type"] for step in steps] == [step["type"] for step in own]
    assert steps[1] == {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}
    assert steps[2:] == own[2:]


def test_mosaic_stays_and_images_get_smaller():
    steps, what = scaled_pipeline("rtmdet_tiny_8xb32-300e_coco")
    own = train_pipeline(config("rtmdet_tiny_8xb32-300e_coco")).inner

    assert [step["type"] for step in steps] == [step["type"] for step in own]
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
    own = train_pipeline(config(name))

    assert scaled_pipeline(name)[0] == (own.outer or own.inner)


def test_fixed_size_stays():
    steps, what = scaled_pipeline("ssd300_coco")

    assert {"type": "Resize", "scale": (300, 300), "keep_ratio": False} in steps
    assert what.startswith("the recipe's pipeline")


def test_data_sets_in_wrappers():
    wrapped = train_pipeline(config("yolox_s_8xb8-300e_coco"))
    assert [step["type"] for step in wrapped.inner] == ["LoadImageFromFile", "LoadAnnotations"]
    assert wrapped.path == "_base_.train_dataloader.dataset.dataset.pipeline"
    assert wrapped.outer[0]["type"] == "Mosaic"
    repeated = train_pipeline(config("centernet_r18_8xb16-crop512-140e_coco"))
    assert repeated.outer is None
    assert repeated.inner[3]["type"] == "RandomCenterCropPad"
    several = train_pipeline(config("faster-rcnn_r50_fpn_1x_voc0712"))
    assert several.path.endswith("dataset.dataset.datasets[0].pipeline")


def test_annotations_of_validation_are_loaded_behind_the_resizing():
    assert validation_pipeline(config("rtmdet_s_8xb32-300e_coco")) == (
        "_base_.val_dataloader.dataset.pipeline"
    )
    masks = validation_pipeline(config("mask-rcnn_r50_fpn_1x_coco"))
    assert [step["type"] for step in masks] == [
        "LoadImageFromFile",
        "Resize",
        "LoadAnnotations",
        "PackDetInputs",
    ]
    assert masks[2] == {"type": "LoadAnnotations", "with_bbox": True}


def test_schedule_in_shares_of_the_iterations():
    first, second = scaled(config("faster-rcnn_r50_fpn_1x_coco"), 3000)

    assert (first["type"], first["end"], first["by_epoch"]) == ("LinearLR", 300, False)
    assert second["milestones"] == ["iterations * 8 // 12", "iterations * 11 // 12"]
    assert (second["end"], second["by_epoch"]) == ("iterations", False)
    cosine = scaled(config("rtmdet_s_8xb32-300e_coco"), 30000)[1]
    assert cosine["begin"] == cosine["T_max"] == "iterations * 150 // 300"
    assert "convert_to_iter_based" not in cosine


def test_warm_up_is_the_recipes_or_a_tenth():
    [long] = warm_up(config("rtmdet_s_8xb32-300e_coco"), 100000)
    [short] = warm_up(config("rtmdet_s_8xb32-300e_coco"), 500)

    assert (long["end"], short["end"]) == (1000, 50)


def test_learning_rate_is_scaled_from_the_recipes_batch(tmp_path):
    assert auto_scale_lr(config("faster-rcnn_r50_fpn_1x_coco")) == {"enable": True}
    assert auto_scale_lr(config("yolox_s_8xb8-300e_coco")) == {"enable": True}
    own = config("rtmdet_s_8xb32-300e_coco")
    assert own.auto_scale_lr.base_batch_size == 16  # which is not the recipe's
    assert auto_scale_lr(own) == {"enable": True, "base_batch_size": 256}


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
    hooks = [hook["type"] for hook in cls.custom_hooks]
    assert "PipelineSwitchHook" not in hooks  # of RTMDet: it waits for an epoch
    assert ("EMAHook" in hooks) == name.startswith("rtmdet")
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


def test_validation_set_is_brought_into_order(tmp_path, data, own):
    val = make_coco(tmp_path / "val", 4, ("dog", "cat"))
    recipe = new_configs(
        own, data[0], data[1], val, tmp_path / "configs",
        work_dirs=str(tmp_path / "work_dirs"),
    )  # fmt: skip

    cls = Config.fromfile(recipe.finetune[0])
    assert cls.train_dataloader.dataset.ann_file == str(data[1])
    written = Config.fromfile(cls.val_dataloader.dataset.ann_file)
    assert [category["name"] for category in written.categories] == ["cat", "dog"]
    other = make_coco(tmp_path / "other", 4, ("dog", "cow"))
    with pytest.raises(ValueError, match=r"categories \['cow'\] are not among"):
        new_configs(
            own, data[0], data[1], other, tmp_path / "b",
            work_dirs=str(tmp_path / "work_dirs"),
        )  # fmt: skip


def test_a_fifth_is_held_out_where_there_is_no_validation(tmp_path, data, own):
    voc = make_voc(tmp_path / "voc", {"train": 11})
    recipe = new_configs(
        own, data[0], voc, None, tmp_path / "configs",
        work_dirs=str(tmp_path / "work_dirs"),
    )  # fmt: skip

    cls = Config.fromfile(recipe.finetune[0])
    files = [
        Config.fromfile(cls[f"{part}_dataloader"].dataset.ann_file) for part in ("train", "val")
    ]
    assert [len(file.images) for file in files] == [9, 2]
    assert {i["id"] for i in files[0].images} & {i["id"] for i in files[1].images} == set()


def test_what_was_edited_stays(tmp_path, data, own):
    args = (own, data[0])
    options = {"out": tmp_path / "configs", "work_dirs": str(tmp_path / "work_dirs")}
    path = new_configs(*args, **options).pretrain
    new_configs(*args, **options)  # the same again
    path.write_text(path.read_text() + "\n# mine\n")

    with pytest.raises(FileExistsError, match="is there with other content"):
        new_configs(*args, **options)
    assert path.read_text().endswith("# mine\n")


def test_timm_backbone_before_an_own_neck(tmp_path, data):
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


def test_weights_that_are_not_there(tmp_path, data):
    for backbone in (None, "timm:convnext_atto"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            new_configs(
                "retinanet_r50_fpn_1x_coco", data[0], out=tmp_path, backbone=backbone,
                weights="nowhere.pth",
            )  # fmt: skip


def test_boxes_that_are_not_there(tmp_path, data):
    with pytest.raises(FileNotFoundError, match="nowhere is not there; expected a folder"):
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


def test_every_detector_of_the_zoo_is_found():
    assert len(zoo()) > 600
    assert all(not path.startswith("_base_") for path in zoo())
