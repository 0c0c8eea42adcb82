"""The configs run as users run them, on tiny data in the real layouts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config

from dap.testing import make_class_folders, make_voc

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
PRETRAIN = CONFIGS / "pretrain" / "faster-rcnn_r50_fpn_40k_in1k-boxes.py"
DAP = CONFIGS / "finetune" / "voc07" / "faster-rcnn_r50-dap-in1k_fpn_14e_voc07.py"
CLS = CONFIGS / "finetune" / "voc07" / "faster-rcnn_r50-cls-in1k_fpn_14e_voc07.py"
RUNNABLE = sorted(p for p in CONFIGS.rglob("*.py") if "_base_" not in p.parts)
FOLDERS = {"n00000001": "blue", "n00000002": "green", "n00000003": "red"}
VOC_CLASSES = ("aeroplane", "bicycle", "bird")  # of VOC's twenty
SMALL_RESNET = ["depth=18", "base_channels=8", "stem_channels=8"]
SMALL_DETECTOR = [
    *(f"model.backbone.{part}" for part in SMALL_RESNET),
    "model.neck.in_channels=[8,16,32,64]",
    "model.neck.out_channels=8",
    "model.rpn_head.in_channels=8",
    "model.rpn_head.feat_channels=8",
    "model.roi_head.bbox_roi_extractor.out_channels=8",
    "model.roi_head.bbox_head.in_channels=8",
    "model.roi_head.bbox_head.fc_out_channels=16",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
]


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_config_has_an_entry_and_a_row(path):
    metafile = yaml.safe_load((path.parent / "metafile.yml").read_text())
    entries = {model["Name"]: model for model in metafile["Models"]}
    assert entries[path.stem]["Config"] == path.relative_to(ROOT).as_posix()
    assert f"({path.name})" in (path.parent / "README.md").read_text()


def test_downstream_links_lead_to_configs():
    names = {path.stem for path in RUNNABLE}
    links = [
        link
        for metafile in CONFIGS.rglob("metafile.yml")
        for model in yaml.safe_load(metafile.read_text())["Models"]
        for link in model.get("Downstream", ())
    ]
    assert links
    assert set(links) <= names


def test_papers_settings():
    """Section 4.1 and the release: what inheritance must not have changed."""
    pretrain = Config.fromfile(str(PRETRAIN))
    assert pretrain.train_cfg.max_iters == 40038
    assert pretrain.auto_scale_lr == {"enable": True, "base_batch_size": 32}
    assert pretrain.optim_wrapper.optimizer.lr == 0.004
    resize = pretrain.train_dataloader.dataset.pipeline[2]
    assert [short for _, short in resize.scales] == [96, 160, 320, 640]
    assert pretrain.model.roi_head.bbox_head.num_classes == 1000
    for path in (PRETRAIN, CLS, DAP):
        backbone = Config.fromfile(str(path)).model.backbone
        assert (backbone.frozen_stages, backbone.norm_eval) == (1, True)
        assert backbone.norm_cfg.requires_grad is False
    voc = Config.fromfile(str(DAP))
    assert voc.train_cfg.max_epochs == 14
    assert voc.param_scheduler[1].milestones == [10]
    assert voc.optim_wrapper.optimizer.lr == 0.01
    assert {m.eval_mode for m in voc.val_evaluator} == {"area", "11points"}
    assert "bbox_min_size" not in voc.train_dataloader.dataset.filter_cfg
    boxes = Config.fromfile(str(CONFIGS / "pseudo_boxes" / "boxes_resnet50_in1k.py"))
    assert dict(boxes.pseudo_boxes) == {
        "short_sides": (288, 576),
        "flip": True,
        "thresholds": (0.2, 0.3, 0.4, 0.5),
        "nms_iou": 0.8,
        "rule": "paper",
    }


def test_twins_differ_in_the_initialisation_alone():
    cls, dap = (Config.fromfile(str(path)).to_dict() for path in (CLS, DAP))
    del dap["model"]["init_cfg"], dap["model"]["backbone"]["init_cfg"]
    del cls["model"]["backbone"]["init_cfg"]
    cls["model"].pop("init_cfg", None)
    assert cls == dap


class Workplace:
    """A folder with tiny data where users have the real sets, and commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_class_folders(folder / "data" / "imagenet" / "train", 4, FOLDERS)
        voc = folder / "data" / "VOCdevkit" / "VOC2007"
        make_voc(voc, {"trainval": 4, "test": 3}, VOC_CLASSES)

    def run(self, *command: object) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHON": sys.executable, "PORT": "29587"},
            timeout=300,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, output[-6000:]
        return output

    def mim_train(self, package: str, config: Path, name: str, *options: str) -> str:
        program = [sys.executable, "-W", "ignore", "-m", "mim", "train", package, config]
        return self.run(*program, "--work-dir", f"work_dirs/{name}", "--cfg-options", *options)

    def dist_train(self, config: Path, name: str, *options: str) -> str:
        """Train in two processes."""
        script = ["bash", ROOT / "tools" / "dist_train.sh", config, 2]
        return self.run(*script, "--work-dir", f"work_dirs/{name}", "--cfg-options", *options)


def from_classifier(checkpoint: Path) -> list[str]:
    """Options for a backbone that starts from one's own classifier."""
    prefix = "model.backbone.init_cfg"
    return [f"{prefix}.checkpoint={checkpoint}", f"{prefix}.prefix=backbone."]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("workplace"))


CLASSIFIER_OPTIONS = [
    *(f"model.backbone.{part}" for part in SMALL_RESNET),
    "model.head.in_channels=64", "model.head.num_classes=3", "model.head.topk=(1,)",
    "train_dataloader.dataset.split=''", "train_dataloader.dataset.data_prefix=train",
    "train_dataloader.dataset.metainfo.classes=('blue','green','red')",
    "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False",
]  # fmt: skip


@pytest.fixture(scope="module")
def classifier(workplace):
    """Step 1 by mim."""
    workplace.mim_train(
        "mmpretrain", CONFIGS / "classification" / "cls_resnet50_8xb32_in1k.py", "classifier",
        *CLASSIFIER_OPTIONS, "train_dataloader.batch_size=4", "train_cfg.max_epochs=1",
        "val_cfg=None", "val_dataloader=None", "val_evaluator=None",
        "test_cfg=None", "test_dataloader=None", "test_evaluator=None",
    )  # fmt: skip
    return workplace.folder / "work_dirs" / "classifier" / "epoch_1.pth"


@pytest.fixture(scope="module")
def boxes(workplace, classifier):
    """Step 2 by the tool."""
    workplace.run(
        sys.executable, ROOT / "tools" / "generate_pseudo_boxes.py",
        CONFIGS / "pseudo_boxes" / "boxes_resnet50_in1k.py", classifier,
        "--out", "work_dirs/boxes_resnet50_in1k",
        "--cfg-options", *CLASSIFIER_OPTIONS, "pseudo_boxes.short_sides=(64,)",
    )  # fmt: skip
    return workplace.folder / "work_dirs" / "boxes_resnet50_in1k" / "annotations.json"


@pytest.fixture(scope="module")
def detector(workplace, classifier, boxes):
    """Step 3 by mim."""
    workplace.mim_train(
        "mmdet", PRETRAIN, "pretrain", *SMALL_DETECTOR,
        "model.roi_head.bbox_head.num_classes=3",
        *from_classifier(classifier),
        "train_dataloader.dataset.pipeline.2.scales=[(160,48),(160,64)]",
        "train_cfg.max_iters=2", "default_hooks.logger.interval=1",
    )  # fmt: skip
    return workplace.folder / "work_dirs" / "pretrain" / "iter_2.pth"


VOC_OPTIONS = [
    *SMALL_DETECTOR,
    "train_cfg.max_epochs=1",
    "train_dataloader.dataset.pipeline.2.scale=(96,64)",
    "val_dataloader.dataset.pipeline.1.scale=(96,64)",
    "val_dataloader.num_workers=0",
    "val_dataloader.persistent_workers=False",
]


def test_boxes_are_named_by_wordnet_id(boxes):
    coco = json.loads(boxes.read_text())
    assert [category["name"] for category in coco["categories"]] == list(FOLDERS)
    assert [category["readable_name"] for category in coco["categories"]] == list(FOLDERS.values())


def test_finetuning_from_dap_by_mim(workplace, detector):
    output = workplace.mim_train(
        "mmdet", DAP, "dap", *VOC_OPTIONS, f"model.init_cfg.checkpoint={detector}"
    )
    assert "voc_area/mAP" in output
    assert "voc_07/mAP" in output
    saved = torch.load(workplace.folder / "work_dirs" / "dap" / "epoch_1.pth")["state_dict"]
    source = torch.load(detector)["state_dict"]
    frozen = "backbone.layer1.0.conv1.weight"
    assert torch.equal(saved[frozen], source[frozen])


def test_finetuning_from_cls_by_mim(workplace, classifier):
    output = workplace.mim_train("mmdet", CLS, "cls", *VOC_OPTIONS, *from_classifier(classifier))
    assert "voc_area/mAP" in output


def test_finetuning_from_dap_by_dist_train(workplace, detector):
    output = workplace.dist_train(
        DAP, "dap2", *VOC_OPTIONS, f"model.init_cfg.checkpoint={detector}"
    )
    assert "voc_area/mAP" in output
    assert "re-initialised because category-dependent: roi_head.bbox_head.fc_cls" in output


def test_finetuning_from_cls_by_dist_train(workplace, classifier):
    workplace.dist_train(CLS, "cls2", *VOC_OPTIONS, *from_classifier(classifier))
    assert (workplace.folder / "work_dirs" / "cls2" / "epoch_1.pth").exists()


def test_pretraining_by_dist_train(workplace, classifier, boxes):
    workplace.dist_train(
        PRETRAIN, "pretrain2", *SMALL_DETECTOR, *from_classifier(classifier),
        "model.roi_head.bbox_head.num_classes=3",
        "train_dataloader.dataset.pipeline.2.scales=[(160,48)]",
        "train_cfg.max_iters=1",
    )  # fmt: skip
    assert (workplace.folder / "work_dirs" / "pretrain2" / "iter_1.pth").exists()
