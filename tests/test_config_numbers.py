"""The numbers of every config: those of the paper, or of MMDetection's recipe."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.utils import get_installed_path

from dap.comparison.config_difference import leaves
from dap.experiments import EXPERIMENTS
from dap.experiments.paper_runs import CLASSIFIERS
from tests.support.shipped_configs import (
    FINETUNE,
    K_SHOT,
    PRETRAIN,
    ROOT,
    RUNNABLE,
    TREE,
    load,
    value_for,
)

# The paper's numbers (section 4.1 and Tables 8 to 10; LR and warm-up of Step 3: the release):
# what a name says → length, steps of the LR, LR, total batch, scales.
STEP_3 = [(1333, 96), (1333, 160), (1333, 320), (1333, 640)]
VOC_SCALE, COCO_SCALE = (1066, 640), (1333, 800)
SCHEDULES = {
    r"faster-rcnn_.*_40k_in1k": (40038, [], 0.004, 32, STEP_3),
    r"retinanet_.*_80k_in1k": (80072, [], 0.005, 32, STEP_3),
    r".*_444k_in14m": (443658, [], 0.004, 32, STEP_3),
    r".*_5e_in200-det": (5, [], 0.004, 32, STEP_3),
    r".*_14e_voc07(12)?$": (14, [10], 0.01, 16, VOC_SCALE),
    r".*_4500it_voc07": (4500, [3214], 0.01, 16, VOC_SCALE),
    r".*_2e_voc07-pseudo12": (2, [], 0.001, 16, VOC_SCALE),
    r".*_90k_coco": (90000, [60000, 80000], 0.02, 16, COCO_SCALE),
    r".*_270k_coco": (270000, [180000, 240000], 0.02, 16, COCO_SCALE),
    # The number of steps is ours, see the tables.
    r".*_voc-5shot$": (500, [357], 0.01, 16, VOC_SCALE),
    r".*_voc-10shot": (750, [536], 0.01, 16, VOC_SCALE),
    r".*_voc-20shot": (1000, [714], 0.01, 16, VOC_SCALE),
    r".*_voc-50shot": (1500, [1071], 0.01, 16, VOC_SCALE),
    r".*_voc-100shot": (2500, [1786], 0.01, 16, VOC_SCALE),
    r".*_voc-5shot-3x": (1500, [1071], 0.01, 16, VOC_SCALE),
    r".*_coco-5shot$": (3000, [2000, 2666], 0.02, 16, COCO_SCALE),
    r".*_coco-10shot": (4000, [2666, 3555], 0.02, 16, COCO_SCALE),
    r".*_coco-20shot": (6000, [4000, 5333], 0.02, 16, COCO_SCALE),
    r".*_coco-50shot": (10000, [6666, 8888], 0.02, 16, COCO_SCALE),
    r".*_coco-100shot": (18000, [12000, 16000], 0.02, 16, COCO_SCALE),
    r".*_coco-5shot-3x": (9000, [6000, 8000], 0.02, 16, COCO_SCALE),
}


@pytest.mark.parametrize("name", [*PRETRAIN, *FINETUNE])
def test_schedule(name):
    length, steps, lr, batch, scale = value_for(SCHEDULES, name)
    config = load(name)
    assert config.train_cfg.get("max_iters", config.train_cfg.get("max_epochs")) == length
    milestones = [s.milestones for s in config.param_scheduler if s.type == "MultiStepLR"]
    assert milestones == ([steps] if steps else [])
    assert all(s.gamma == 0.1 for s in config.param_scheduler if s.type == "MultiStepLR")
    assert config.optim_wrapper.optimizer.lr == lr
    assert config.optim_wrapper.optimizer.weight_decay == (1e-5 if "in14m" in name else 1e-4)
    assert config.auto_scale_lr == {"enable": True, "base_batch_size": batch}
    warm_up = [(s.start_factor, s.end) for s in config.param_scheduler if s.type == "LinearLR"]
    few = 100 if "shot" in name else 500  # of fine-tuning: the paper does not say
    expected = (0.01, 2000) if name in PRETRAIN else (1 / 3, few)
    assert warm_up == ([] if "pseudo12" in name else [expected])
    resize = [
        size
        for key, value in leaves(config.train_dataloader.dataset)
        if re.search(r"\.scales?\b", key)
        for size in (value if isinstance(value, list) else [value])
    ]
    assert resize
    assert all(found in ([scale] if isinstance(scale, tuple) else scale) for found in resize)
    if isinstance(scale, list):
        assert resize == scale


@pytest.mark.parametrize("name", ["rtmdet_s_10k_in1k-boxes", "dino-4scale_r50_80k_in1k-boxes"])
def test_other_detectors_keep_their_recipe(name):
    """Passes over 1,281,167 images; model, optimizer and batch are MMDetection's."""
    config = TREE.load(name)
    passes, batch, zoo = {
        "rtmdet": (2, 256, "rtmdet/rtmdet_s_8xb32-300e_coco.py"),
        "dino-4": (1, 16, "dino/dino-4scale_r50_8xb2-12e_coco.py"),
    }[name[:6]]
    own = Config.fromfile(Path(get_installed_path("mmdet")) / ".mim/configs" / zoo)
    assert config.train_cfg.max_iters == -(-passes * 1281167 // batch)
    assert config.auto_scale_lr == {"enable": True, "base_batch_size": batch}
    assert own.optim_wrapper.items() <= config.optim_wrapper.items()
    assert config.train_dataloader.batch_size == own.train_dataloader.batch_size
    assert config.model.backbone.init_cfg.checkpoint == own.model.backbone.init_cfg.checkpoint


@pytest.mark.parametrize("name", K_SHOT)
def test_files_and_intervals_of_k_shot_trainings(name):
    """Figures 3 and 4 and Table 10: all else but length and draw is as in the config itself."""
    run, config = K_SHOT[name], load(name)
    k = run.shots.partition("shot")[0]
    data, interval = ("voc0712", 250) if "_voc-" in name else ("coco", 1000)
    ann_file = f"data/few_shot/{data}_{k}shot_seed0/annotations.json"
    assert config.train_dataloader.dataset.ann_file == ann_file
    assert config.train_cfg.val_interval == config.default_hooks.checkpoint.interval == interval
    written = dict(leaves(TREE.load(run.config).to_dict()))
    changed = {key for key, value in leaves(config.to_dict()) if written[key] != value}
    assert changed == (
        set()
        if run.shots == "5shot"
        else {"train_cfg.max_iters", "param_scheduler.1.milestones"}
        | ({"train_dataloader.dataset.ann_file"} if k != "5" else set())
    )


def test_k_shot_trainings_are_those_of_the_paper():
    starts = [f"{kind}-{data}" for kind in ("cls", "dap") for data in ("in1k", "in14m")]
    expected = {
        f"faster-rcnn_r50-{start}_fpn_{data}-{k}shot"
        for start in starts
        for data in ("voc", "coco")
        for k in (5, 10, 20, 50, 100)
    }
    expected |= {
        f"faster-rcnn_r50-{start}-in1k_fpn_{data}-5shot-3x"
        for start in ("cls", "dap")
        for data in ("voc", "coco")
    }
    assert set(K_SHOT) == expected


@pytest.mark.parametrize("data", ["voc", "coco"])
def test_k_shot_schedules_stand_in_the_readme(data):
    readme = (ROOT / "configs" / "finetune" / f"{data}_kshot" / "README.md").read_text()
    schedules = TREE.load(f"faster-rcnn_r50-cls-in1k_fpn_{data}-kshot").k_shot_schedules
    classes = 20 if data == "voc" else 80
    for entry, schedule in schedules.items():
        k = entry.partition("shot")[0]
        steps = " and ".join(f"{step:,}" for step in schedule.milestones)
        name = f"{k}, 3x (Table 10)" if entry.endswith("3x") else k
        assert f"| {name} | {int(k) * classes:,} | {schedule.max_iters:,} | {steps} |" in readme


@pytest.mark.parametrize("name", [*PRETRAIN, *FINETUNE])
def test_frozen_layers(name):
    """BN is fixed, stem and stage 1 are frozen (section 4.1); for Table 3 the whole backbone."""
    backbone = load(name).model.backbone
    whole = name.endswith("frozen-backbone")
    assert (backbone.frozen_stages, backbone.norm_eval) == (4 if whole else 1, True)
    assert backbone.norm_cfg.requires_grad is False
    assert backbone.depth == (101 if "r101" in name else 50)


@pytest.mark.parametrize("name", [name for name in FINETUNE if "voc" in name])
def test_voc_is_taken_as_the_paper_does(name):
    config = load(name)
    assert {metric.eval_mode for metric in config.val_evaluator} == {"area", "11points"}
    assert config.test_evaluator == config.val_evaluator
    assert config.test_dataloader.dataset.ann_file == "VOC2007/ImageSets/Main/test.txt"
    small = [key for key, _ in leaves(config.train_dataloader) if "bbox_min_size" in key]
    assert not small
    resize = config.val_dataloader.dataset.pipeline[1]
    assert resize.scale == VOC_SCALE


def test_validation_of_figure_5():
    assert TREE.load("faster-rcnn_r50-dap-in1k_fpn_4500it_voc07").train_cfg.val_interval == 500
    assert TREE.load("faster-rcnn_r50-dap-in1k_fpn_90k_coco").train_cfg.val_interval == 5000


def test_classifier_of_14_million_images():
    """Section 4.1: batch 8192 on 64 GPUs, 50 epochs, LR 3.2, cosine, WD 1e-5."""
    for depth in (50, 101):
        config = TREE.load(f"cls_resnet{depth}_64xb128_in14m")
        assert config.model.backbone.depth == depth
        assert config.train_cfg.max_epochs == 50
        assert config.optim_wrapper.optimizer.lr == 3.2
        assert config.optim_wrapper.optimizer.weight_decay == 1e-5
        assert config.train_dataloader.batch_size * 64 == 8192
        assert config.auto_scale_lr == {"enable": True, "base_batch_size": 8192}
        warm_up, cosine = config.param_scheduler
        assert (cosine.type, cosine.begin, cosine.end) == ("CosineAnnealingLR", 5, 50)
        assert cosine.begin + cosine.T_max == 50
        assert warm_up.end == 5
        assert config.model.head.num_classes == 21841


@pytest.mark.parametrize("name", [path.stem for path in RUNNABLE if "boxes_" in path.stem[:6]])
def test_pseudo_boxes(name):
    """Section 4.1: short sides 288 and 576, flip, four thresholds, NMS .8."""
    config = TREE.load(name)
    assert dict(config.pseudo_boxes) == {
        "short_sides": (288, 576),
        "flip": True,
        "thresholds": (0.2, 0.3, 0.4, 0.5),
        "nms_iou": None if name.endswith("candidates") else 0.8,
        "rule": "paper",
    }
    assert config.model.backbone.depth == (101 if "resnet101" in name else 50)
    assert config.model.head.num_classes == (21841 if "in14m" in name else 1000)
    assert name in CLASSIFIERS


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_figures_of_the_paper_stand_in_the_tables(experiment):
    """The README beside a config shows the paper's figures of the runs of that config."""
    for row in experiment.rows:
        for cell in row.cells:
            is_variant = cell.run.name != cell.run.config and not cell.run.shots
            if cell.paper is None or is_variant:
                continue
            if cell.run.config.startswith("boxes_"):
                readme = (ROOT / "configs" / "pseudo_boxes" / "README.md").read_text()
                assert re.search(rf"[ ,]{cell.paper}[ ,]", readme)
                continue
            path = TREE.path(cell.run.config)
            readme = (path.parent / "README.md").read_text()
            line = next(line for line in readme.splitlines() if f"({path.name})" in line)
            assert re.search(rf"[| ]{cell.paper:.2f}[ |]", line), (cell, line)
