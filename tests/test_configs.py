"""Every config: parses, is listed, builds, fits its data set, and has a twin."""

import re
from functools import cache

import pytest
import torch
import yaml
from mmdet.datasets import VOCDataset
from mmengine.config import Config
from mmengine.registry import DefaultScope

from dap.comparison.config_difference import leaves
from dap.experiments.config_tree import work_dir_paths
from dap.experiments.paper_runs import CLASSIFIERS
from tests.support.shipped_configs import (
    ALL_FINETUNE,
    ROOT,
    RUNNABLE,
    TREE,
    names,
    value_for,
)

DAP = [name for name in ALL_FINETUNE if re.search("-(dap|det)-", name)]
VOC_CLASSES = VOCDataset.METAINFO["classes"]
NUM_CLASSES = {
    r".*in1k-(boxes|masks|val).*": 1000,
    r".*in14m-boxes": 21841,
    r".*in200-det$": 200,
    r".*voc.*": 20,
    r".*coco.*": 80,
}


@pytest.mark.parametrize("path", RUNNABLE, ids=names(RUNNABLE))
def test_entry_and_row(path):
    metafile = yaml.safe_load((path.parent / "metafile.yml").read_text())
    entries = {model["Name"]: model for model in metafile["Models"]}
    assert entries[path.stem]["Config"] == path.relative_to(ROOT).as_posix()
    assert f"({path.name})" in (path.parent / "README.md").read_text()


def test_metafiles_are_indexed():
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())["Import"]
    assert sorted(index) == sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("metafile.yml")
    )


def test_downstream_links_are_what_configs_read():
    """A metafile says what is built on a config; the configs' paths say the same."""
    said, read = set(), set()
    for metafile in (ROOT / "configs").rglob("metafile.yml"):
        for model in yaml.safe_load(metafile.read_text())["Models"]:
            said |= {(model["Name"], child) for child in model.get("Downstream", ())}
    for path in RUNNABLE:
        for source in work_dir_paths(TREE.load(path.stem)).values():
            upstream = source.split("/")[1]
            if source.startswith("work_dirs/") and upstream in TREE:
                read.add((upstream, path.stem))
    depth = {
        "boxes_resnet50": "cls_resnet50_8xb32_in1k",
        "boxes_resnet101": "cls_resnet101_8xb32_in1k",
    }
    for boxes, checkpoint in CLASSIFIERS.items():
        own = depth[boxes.rsplit("_in", 1)[0]]
        read.add((checkpoint.split("/")[1] if checkpoint.startswith("work_dirs") else own, boxes))
    read.add(("faster-rcnn_r50_fpn_40k_in1k-boxes", "faster-rcnn_r50_fpn_40k_in1k-val"))
    assert said == read


@pytest.mark.parametrize(
    "name", ["rtmdet_s-cls-in1k_300e_voc07", "dino-4scale_r50-cls-in1k_12e_voc07"]
)
def test_other_detectors_on_voc(name):
    """Data and metrics are those of VOC, all else is as on COCO."""
    config, coco = TREE.load(name), TREE.load(name.replace("voc07", "coco"))
    paper = TREE.load("faster-rcnn_r50-cls-in1k_fpn_14e_voc07")
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        own, theirs = config[loader].dataset, paper[loader].dataset
        same = ("type", "data_root", "ann_file", "data_prefix")
        assert [own[key] for key in same] == [theirs[key] for key in same]
        assert own.pipeline == coco[loader].dataset.pipeline
        assert config[loader].batch_size == coco[loader].batch_size
    assert config.val_evaluator == config.test_evaluator == paper.val_evaluator
    assert config.model.bbox_head.num_classes == 20
    rest = ("optim_wrapper", "param_scheduler", "train_cfg", "custom_hooks", "auto_scale_lr")
    assert [config[key] for key in rest] == [coco[key] for key in rest]


def test_masks_are_one_more_annotation():
    """What learns from masks of the store is Mask R-CNN's head; the rest is as with boxes alone."""
    boxes, masks = (TREE.load(f"mask-rcnn_r50_fpn_40k_in1k-{what}") for what in ("boxes", "masks"))
    pipeline = list(boxes.train_dataloader.dataset.pipeline)
    pipeline[1] = {**pipeline[1], "with_mask": True}
    assert pipeline == masks.train_dataloader.dataset.pipeline
    assert boxes.model.type == masks.model.type == "MaskRCNN"
    assert "mask_head" not in boxes.model.roi_head
    assert masks.model.roi_head.mask_head.num_classes == 1000
    for key in ("backbone", "neck", "rpn_head"):
        assert boxes.model[key] == masks.model[key]


@cache
def build(model: str):
    """Build a model of this config text; a detector without memory for its weights."""
    from mmdet.utils import register_all_modules
    from mmengine.registry import MODELS

    register_all_modules(init_default_scope=False)
    config = Config.fromstring(model, ".py").model
    classifier = config.type == "ImageClassifier"  # whose ResNet reads numbers off a tensor
    scope, device = ("mmpretrain", "cpu") if classifier else ("mmdet", "meta")
    with DefaultScope.overwrite_default_scope(scope), torch.device(device):
        return MODELS.build(config)


def without_checkpoints(model):
    if isinstance(model, dict):
        return {k: without_checkpoints(v) for k, v in model.items() if k != "init_cfg"}
    return [without_checkpoints(v) for v in model] if isinstance(model, list) else model


@pytest.mark.parametrize("path", RUNNABLE, ids=names(RUNNABLE))
def test_model_builds_and_fits_its_data(path):
    config = TREE.load(path.stem)
    model = build(f"model = {without_checkpoints(config.model.to_dict())!r}")
    least = 8e6 if "rtmdet_s" in path.stem else 2e7
    assert sum(parameter.numel() for parameter in model.parameters()) > least
    if path.parent.name in ("classification", "pseudo_boxes"):
        assert model.head.num_classes == (21841 if "in14m" in path.stem else 1000)
        return
    head = model.roi_head.bbox_head if hasattr(model, "roi_head") else model.bbox_head
    assert head.num_classes == value_for(NUM_CLASSES, path.stem)
    agnostic = path.stem == "faster-rcnn_r101_fpn_444k_in14m-boxes"
    assert getattr(head, "reg_class_agnostic", False) is agnostic
    for key, classes in leaves(config.train_dataloader.dataset):
        if key.endswith("classes") and classes:
            assert classes == VOC_CLASSES


@pytest.mark.parametrize("path", RUNNABLE, ids=names(RUNNABLE))
def test_own_types_exist(path):
    """Every ``dap.`` type is found in its registry, by MMEngine's own way of looking."""
    from mmengine import registry

    nodes = (
        registry.DATASETS, registry.HOOKS, registry.METRICS, registry.MODELS,
        registry.WEIGHT_INITIALIZERS, registry.LOOPS,
    )  # fmt: skip
    config = TREE.load(path.stem)
    own = {value for key, value in leaves(config.to_dict()) if key.endswith("type")
           and str(value).startswith("dap.")}  # fmt: skip
    assert all(any(node.get(kind) for node in nodes) for kind in own), own
    if path.parent.name in ("classification", "pseudo_boxes"):
        assert "dap" in config.custom_imports.imports  # its checkpoints load
    else:
        assert "dap.TotalBatchHook" in own
    if config.train_cfg.get("type") == "IterBasedTrainLoop":
        assert "dap.ResumedDataHook" in own


@pytest.mark.parametrize("path", RUNNABLE, ids=names(RUNNABLE))
def test_a_kill_leaves_a_checkpoint(path):
    """MMEngine removes the oldest checkpoint before it writes the next one."""
    hooks = TREE.load(path.stem).get("default_hooks", {})
    assert hooks.get("checkpoint", {}).get("max_keep_ckpts", -1) != 1


def plain(name):
    """A config without what a twin may differ in: where the weights start from."""
    config = TREE.load(name).to_dict()
    config["model"].pop("init_cfg", None)
    config["model"]["backbone"].pop("init_cfg", None)
    return config


@pytest.mark.parametrize("name", DAP)
def test_twins_differ_in_the_initialisation_alone(name):
    twin = re.sub("-(dap|dap-frozen|det)-(in1k|in14m|in200)", r"-cls-\2", name)
    twin = twin.replace("cls-in200", "cls-in1k").replace("-dap-frozen", "-cls")
    cls, dap = plain(twin), plain(name)
    if "pseudo12" in name:  # its start, and the labels that its start has made
        assert cls.pop("load_from") == dap.pop("load_from").replace("-dap-", "-cls-")
        labels = cls["train_dataloader"]["dataset"]["datasets"][1]
        own = dap["train_dataloader"]["dataset"]["datasets"][1]
        assert labels.pop("ann_file") == own.pop("ann_file").replace("-dap-", "-cls-")
        del dap["voc07"], dap["pseudo12"]
    assert cls == dap


@pytest.mark.parametrize("name", [name for name in DAP if "pseudo12" not in name])
def test_dap_starts_from_its_pretraining(name):
    """The checkpoint is the last one of the pre-training of the same architecture and data."""
    config = TREE.load(name)
    assert config.model.init_cfg.type == "dap.PretrainedDetector"
    assert config.model.backbone.init_cfg is None
    _, source, file = config.model.init_cfg.checkpoint.split("/")
    pretrain = TREE.load(source)
    length = pretrain.train_cfg
    last = f"iter_{length.max_iters}" if "max_iters" in length else f"epoch_{length.max_epochs}"
    assert file == f"{last}.pth"
    architecture = re.split("-(?:dap|det)-", name.replace("-frozen", ""))[0]
    assert source.startswith(f"{architecture}_")
    assert re.search("in1k|in14m|in200", name)[0] in source
    assert source.endswith("frozen-backbone") == ("dap-frozen" in name)
