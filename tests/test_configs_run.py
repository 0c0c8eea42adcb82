"""Each kind of config runs as users run it: real tools, tiny data, shrunk by options alone."""

import json
import pickle
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from tests.support.workplace import (
    CLASSIFIER_OPTIONS,
    CONFIGS,
    FOLDERS,
    ROOT,
    SMALL_FASTER_RCNN,
    SMALL_RETINANET,
    SMALL_STEP_3,
    SMALL_VALIDATION,
    TWO_STEPS,
    VOC_OPTIONS,
    Workplace,
    from_classifier,
    from_detector,
    make_store,
)

PRETRAIN = CONFIGS / "pretrain" / "faster-rcnn_r50_fpn_40k_in1k-boxes.py"
VOC07 = CONFIGS / "finetune" / "voc07"
DAP = VOC07 / "faster-rcnn_r50-dap-in1k_fpn_14e_voc07.py"
CLS = VOC07 / "faster-rcnn_r50-cls-in1k_fpn_14e_voc07.py"
NO_VALIDATION = [
    "val_cfg=None", "val_dataloader=None", "val_evaluator=None",
    "test_cfg=None", "test_dataloader=None", "test_evaluator=None",
]  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("workplace"))


@pytest.fixture(scope="module")
def classifier(workplace):
    """Step 1 by mim."""
    workplace.mim_train(
        "mmpretrain", CONFIGS / "classification" / "cls_resnet50_8xb32_in1k.py", "classifier",
        *CLASSIFIER_OPTIONS, *NO_VALIDATION, "train_dataloader.batch_size=4",
        "train_cfg.max_epochs=1",
    )  # fmt: skip
    return workplace.folder / "work_dirs" / "classifier" / "epoch_1.pth"


@pytest.fixture(scope="module")
def boxes(workplace, classifier):
    """Step 2 by the tool."""
    workplace.tool(
        "generate_pseudo_boxes",
        CONFIGS / "pseudo_boxes" / "boxes_resnet50_in1k.py", classifier,
        "--out", "work_dirs/boxes_resnet50_in1k",
        "--cfg-options", *CLASSIFIER_OPTIONS, "pseudo_boxes.short_sides=(64,)",
    )  # fmt: skip
    return workplace.folder / "work_dirs" / "boxes_resnet50_in1k" / "annotations.json"


@pytest.fixture(scope="module")
def detector(workplace, classifier, boxes):
    """Step 3."""
    workplace.train(
        PRETRAIN, "pretrain", *SMALL_FASTER_RCNN, *SMALL_STEP_3,
        *from_classifier(classifier),
        "model.roi_head.bbox_head.num_classes=3",
        "train_cfg.max_iters=2", "default_hooks.logger.interval=1",
    )  # fmt: skip
    return workplace.folder / "work_dirs" / "pretrain" / "iter_2.pth"


@pytest.fixture(scope="module")
def finetuned(workplace, detector):
    """Step 4 by mim: log and checkpoint."""
    options = [*SMALL_FASTER_RCNN, *VOC_OPTIONS, *from_detector(detector)]
    output = workplace.mim_train("mmdet", DAP, "dap", *options)
    return output, workplace.folder / "work_dirs" / "dap" / "epoch_1.pth"


def state(checkpoint):
    return torch.load(checkpoint)["state_dict"]


def test_boxes_are_named_by_wordnet_id(boxes):
    coco = json.loads(boxes.read_text())
    assert [category["name"] for category in coco["categories"]] == list(FOLDERS)
    assert [category["readable_name"] for category in coco["categories"]] == list(FOLDERS.values())


def test_boxes_in_two_processes_are_the_same(workplace, classifier, boxes):
    workplace.run(
        "bash", ROOT / "tools" / "dist.sh", "boxes", 2,
        CONFIGS / "pseudo_boxes" / "boxes_resnet50_in1k.py", classifier, "--out", "work_dirs/two",
        "--cfg-options", *CLASSIFIER_OPTIONS, "pseudo_boxes.short_sides=(64,)",
    )  # fmt: skip
    two = workplace.folder / "work_dirs" / "two"
    for name in ("manifest.json", "annotations.json"):
        assert (two / name).read_bytes() == boxes.with_name(name).read_bytes()


def test_finetuning_from_dap_by_mim(finetuned, detector):
    output, checkpoint = finetuned
    assert "voc_area/mAP" in output
    assert "voc_07/mAP" in output
    frozen = "backbone.layer1.0.conv1.weight"
    assert torch.equal(state(checkpoint)[frozen], state(detector)[frozen])
    assert "total batch 2 (2 x 1 process); the config's recipe is for 16" in output


def test_pretraining_says_whether_it_works(workplace, detector):
    """Validation on held-out boxes of the store that the training set reads, at its end."""
    folder = workplace.folder / "work_dirs" / "pretrain"
    assert re.search(
        r"Iter\(val\) .* localization/average_recall: ", next(folder.glob("*/*.log")).read_text()
    )
    drawn = folder.glob("*/vis_data/vis_image/*.png")
    assert [path.name for path in drawn] == ["val_img_0_2.png"]  # one image is held out


def test_a_training_set_that_holds_nothing_out(workplace, classifier, boxes):
    options = [*SMALL_FASTER_RCNN, *SMALL_STEP_3, *from_classifier(classifier)]
    with pytest.raises(AssertionError, match=r"holds no images out; expected a dap\.Pseudo.*part"):
        workplace.train(
            PRETRAIN, "whole", *options, "model.roi_head.bbox_head.num_classes=3",
            "train_dataloader.dataset.part=None",
        )  # fmt: skip


def test_finetuning_from_cls(workplace, classifier):
    options = [*SMALL_FASTER_RCNN, *VOC_OPTIONS, *from_classifier(classifier)]
    output = workplace.train(CLS, "cls", *options)
    assert "voc_area/mAP" in output


@pytest.mark.slow
def test_finetuning_from_dap_by_dist_train(workplace, detector):
    options = [*SMALL_FASTER_RCNN, *VOC_OPTIONS, *from_detector(detector)]
    output = workplace.dist_train(DAP, "dap2", *options)
    assert "voc_area/mAP" in output
    assert "re-initialised because category-dependent: roi_head.bbox_head.fc_cls" in output


def test_pretraining_killed_and_resumed_in_two_processes(workplace, classifier, boxes):
    options = [
        *SMALL_FASTER_RCNN, *from_classifier(classifier),
        "model.roi_head.bbox_head.num_classes=3",
        "train_dataloader.dataset.pipeline.2.scales=[(160,48)]",
        "default_hooks.checkpoint.interval=2", "default_hooks.checkpoint.max_keep_ckpts=-1",
    ]  # fmt: skip
    folder = workplace.folder / "work_dirs" / "pretrain2"
    saved = folder / "last_checkpoint"
    workplace.kill_dist_train(PRETRAIN, "pretrain2", saved, *options, "train_cfg.max_iters=4000")
    reached = int(saved.read_text().split("iter_")[1].removesuffix(".pth"))
    last = reached + 3
    output = workplace.dist_train(
        PRETRAIN, "pretrain2", *options, f"train_cfg.max_iters={last}", flags=["--resume"]
    )
    assert f"resumed epoch: 0, iter: {reached}" in output
    assert torch.load(folder / f"iter_{last}.pth")["meta"]["iter"] == last


def test_retinanet(workplace, classifier, boxes):
    workplace.train(
        CONFIGS / "pretrain" / "retinanet_r50_fpn_80k_in1k-boxes.py", "retina",
        *SMALL_RETINANET, *SMALL_STEP_3, *from_classifier(classifier),
        "model.bbox_head.num_classes=3", "train_cfg.max_iters=2",
    )  # fmt: skip
    pretrained = workplace.folder / "work_dirs" / "retina" / "iter_2.pth"
    output = workplace.train(
        VOC07 / "retinanet_r50-dap-in1k_fpn_14e_voc07.py", "retina_dap",
        *SMALL_RETINANET, *VOC_OPTIONS, *from_detector(pretrained),
    )  # fmt: skip
    assert "voc_area/mAP" in output
    assert "re-initialised because category-dependent: bbox_head.retina_cls" in output


def test_frozen_backbone(workplace, classifier, boxes):
    workplace.train(
        CONFIGS / "pretrain" / "faster-rcnn_r50_fpn_40k_in1k-boxes_frozen-backbone.py",
        "frozen", *SMALL_FASTER_RCNN, *SMALL_STEP_3, *from_classifier(classifier),
        "model.roi_head.bbox_head.num_classes=3", "train_cfg.max_iters=2",
    )  # fmt: skip
    before, after = (
        state(path) for path in (classifier, workplace.folder / "work_dirs/frozen/iter_2.pth")
    )
    backbone = [name for name in after if name.startswith("backbone.")]
    assert len(backbone) == 120
    assert all(torch.equal(after[name], before[name]) for name in backbone)


def test_voc_0712(workplace, detector):
    config = CONFIGS / "finetune" / "voc0712" / "faster-rcnn_r50-dap-in1k_fpn_14e_voc0712.py"
    resize = [f"train_dataloader.dataset.datasets.{i}.pipeline.2.scale=(96,64)" for i in range(2)]
    output = workplace.train(
        config, "voc0712", *SMALL_FASTER_RCNN, *SMALL_VALIDATION, *resize,
        *from_detector(detector), "train_cfg.max_epochs=1", "default_hooks.logger.interval=1",
    )  # fmt: skip
    assert "Epoch(train) [1][4/4]" in output  # 4 + 4 images, each once
    assert "voc_07/mAP" in output


def test_coco(workplace, detector):
    config = CONFIGS / "finetune" / "coco" / "faster-rcnn_r50-dap-in1k_fpn_90k_coco.py"
    output = workplace.train(
        config, "coco", *SMALL_FASTER_RCNN, *SMALL_VALIDATION, *TWO_STEPS,
        *from_detector(detector), "train_dataloader.dataset.pipeline.2.scale=(96,64)",
        "model.test_cfg.rcnn.score_thr=0.0",  # without a detection there are no metrics
    )  # fmt: skip
    assert "coco/bbox_mAP_50" in output


@pytest.mark.parametrize(
    ("kind", "source", "metric"),
    [
        ("voc", ["--voc", "data/VOCdevkit/VOC2007", "data/VOCdevkit/VOC2012"], "voc_area/mAP"),
        ("coco", ["--coco", "data/coco/annotations/instances_train2017.json"], "coco/bbox_mAP"),
    ],
)
def test_k_shot(workplace, detector, kind, source, metric):
    workplace.tool("few_shot", *source, "--shots", 5, "--seeds", 0)
    config = f"finetune/{kind}_kshot/faster-rcnn_r50-dap-in1k_fpn_{kind}-kshot.py"
    output = workplace.train(
        CONFIGS / config, f"{kind}_5shot", *SMALL_FASTER_RCNN, *SMALL_VALIDATION,
        *TWO_STEPS, *from_detector(detector),
        "train_dataloader.dataset.pipeline.2.scale=(96,64)", "model.test_cfg.rcnn.score_thr=0.0",
    )  # fmt: skip
    assert metric in output


def test_ilsvrc_det(workplace, classifier):
    workplace.tool(
        "xml_to_coco", "data/ILSVRC/Annotations/DET/train", "data/ILSVRC/Data/DET/train",
        "--out", "data/ILSVRC/det_train.json",
    )  # fmt: skip
    workplace.train(
        CONFIGS / "pretrain" / "faster-rcnn_r50_fpn_5e_in200-det.py", "det",
        *SMALL_FASTER_RCNN, *(option for option in SMALL_STEP_3 if option.startswith("train")),
        *from_classifier(classifier),
        "model.roi_head.bbox_head.num_classes=3", "train_cfg.max_epochs=1",
    )  # fmt: skip
    meta = torch.load(workplace.folder / "work_dirs" / "det" / "epoch_1.pth")["meta"]
    assert meta["dataset_meta"]["classes"] == tuple(FOLDERS)


def test_self_training(workplace, finetuned):
    """Table 9 from the list of images to the second training; no file of labels is touched."""
    folder = CONFIGS / "finetune" / "self_training"
    voc12 = workplace.folder / "data" / "VOCdevkit" / "VOC2012"
    hidden = voc12.with_name("labels of VOC2012")
    (voc12 / "Annotations").rename(hidden)
    images = "work_dirs/unlabelled_voc12/images.json"
    workplace.tool("unlabelled_images", voc12, "--split", "trainval", "--out", images)
    workplace.test(
        folder / "predict_faster-rcnn_r50_fpn_voc12.py", finetuned[1], "predictions",
        *SMALL_FASTER_RCNN, "model.test_cfg.rcnn.score_thr=0.0",
        "tta_pipeline.1.transforms.0.0.scale=(96,64)",
        "test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False",
        flags=["--tta"],
    )  # fmt: skip
    predictions = "work_dirs/predict_faster-rcnn_r50_fpn_voc12/predictions.bbox.json"
    labels = "work_dirs/pseudo-labels_r50-dap-in1k_voc12/annotations.json"
    workplace.tool("pseudo_labels", images, predictions, "--out", labels)
    made = json.loads((workplace.folder / labels).read_text())
    assert len(made["images"]) == 4
    assert made["annotations"]
    resize = [f"train_dataloader.dataset.datasets.{i}.pipeline.2.scale=(96,64)" for i in range(2)]
    output = workplace.train(
        folder / "faster-rcnn_r50-dap-in1k_fpn_2e_voc07-pseudo12.py", "2e",
        *SMALL_FASTER_RCNN, *SMALL_VALIDATION, *resize, f"load_from={finetuned[1]}",
        "train_cfg.max_epochs=1", "default_hooks.logger.interval=1",
    )  # fmt: skip
    hidden.rename(voc12 / "Annotations")
    assert "Epoch(train) [1][4/4]" in output  # 4 labelled images and 4 with pseudo labels
    assert "voc_area/mAP" in output


def test_detector_as_classifier(workplace, detector):
    """The accuracies in the log are those of the detections that mmdet writes."""
    config = CONFIGS / "detector_as_classifier" / "faster-rcnn_r50_fpn_40k_in1k-val.py"
    output = workplace.test(
        config, detector, "as_classifier", *SMALL_FASTER_RCNN,
        "model.roi_head.bbox_head.num_classes=3", "model.test_cfg.rcnn.score_thr=0.0",
        "test_dataloader.dataset.metainfo.classes=('blue','green','red')",
        "test_dataloader.dataset.pipeline.1.scale=(96,64)", "test_evaluator.topk=(1,2)",
        "test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False",
        flags=["--out", "results.pkl"],
    )  # fmt: skip
    results = pickle.loads((workplace.folder / "results.pkl").read_bytes())
    assert len(results) == 6
    right = {1: 0, 2: 0}
    for result in results:
        sums = Counter()
        found = result["pred_instances"]
        for label, score in zip(found["labels"].tolist(), found["scores"].tolist(), strict=True):
            sums[label] += score
        truth = list(FOLDERS).index(Path(result["img_path"]).parent.name)
        for k in right:
            right[k] += truth in [label for label, _ in sums.most_common(k)]
    for k in right:
        assert f"classification/top{k}: {100 * right[k] / 6:.4f}" in output
    assert "classification/images_without_detection: 0" in output


def test_class_count_of_14_million_images(workplace, classifier, boxes):
    """21,841 classes, class-agnostic regression, then VOC: fc_reg is of another size there."""
    store = workplace.folder / "work_dirs" / "boxes_resnet101_in14m"
    make_store(boxes, store, categories=21841)
    workplace.train(
        CONFIGS / "pretrain" / "faster-rcnn_r101_fpn_444k_in14m-boxes.py", "in14m",
        *SMALL_FASTER_RCNN, *SMALL_STEP_3, *from_classifier(classifier),
        "train_dataloader.dataset.data_prefix.img=data/imagenet/train/",
        "train_cfg.max_iters=2",
    )  # fmt: skip
    pretrained = workplace.folder / "work_dirs" / "in14m" / "iter_2.pth"
    shapes = {name: tuple(value.shape) for name, value in state(pretrained).items()}
    assert shapes["roi_head.bbox_head.fc_cls.weight"] == (21842, 16)
    assert shapes["roi_head.bbox_head.fc_reg.weight"] == (4, 16)
    config = VOC07 / "faster-rcnn_r101-dap-in14m_fpn_14e_voc07.py"
    options = [*SMALL_FASTER_RCNN, *VOC_OPTIONS, *from_detector(pretrained)]
    output = workplace.train(config, "in14m_voc", *options)
    assert "category-dependent: roi_head.bbox_head.fc_cls" in output
    assert "roi_head.bbox_head.fc_reg.weight (4, 16) in place of (80, 16)" in output
