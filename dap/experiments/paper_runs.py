"""Runs of the paper that share the config of another run, and the weights of Step 2."""

from __future__ import annotations

from .catalogue import Run

CANDIDATES = "boxes_resnet50_in1k_candidates"
RELEASE = {"pseudo_boxes.rule": "release"}
PRETRAIN = "faster-rcnn_r50_fpn_40k_in1k-boxes"

# Weights that Step 2 starts from: config → checkpoint (section 4.1).
CLASSIFIERS = {
    "boxes_resnet50_in1k": "torchvision://resnet50",
    CANDIDATES: "torchvision://resnet50",
    "boxes_resnet101_in1k": "torchvision://resnet101",
    "boxes_resnet50_in14m": "work_dirs/cls_resnet50_64xb128_in14m/epoch_50.pth",
    "boxes_resnet101_in14m": "work_dirs/cls_resnet101_64xb128_in14m/epoch_50.pth",
}

# Selections from all boxes of one run: variant → thresholds and NMS (Tables A1, A2).
VARIANTS: dict[str, dict[str, object]] = {
    **{f"_tau{tau}": {"thresholds": (tau,)} for tau in (0.2, 0.3, 0.4, 0.5)},
    "": {},
    **{f"_nms{iou}": {"nms_iou": iou} for iou in (0.5, 0.6, 0.7, 0.9)},
    "_nms1.0": {"nms_iou": None},
}
# These selections by both rules: folder → run to select from, thresholds and NMS.
SELECTIONS: dict[str, tuple[Run, dict[str, object]]] = {
    f"boxes_resnet50_in1k{rule}{variant}": (
        Run(CANDIDATES, RELEASE if rule else {}, CANDIDATES + rule),
        {**fields, **({"rule": "release"} if rule else {})},
    )
    for rule in ("", "_release")
    for variant, fields in VARIANTS.items()
}
# Step 3 on each variant: folder → run. Only the paper's main setting has a config.
PRETRAININGS: dict[str, Run] = {
    PRETRAIN + variant: Run(
        PRETRAIN, {"train_dataloader.dataset.ann_file": boxes}, PRETRAIN + variant
    )
    for variant in VARIANTS
    if variant and (boxes := f"work_dirs/boxes_resnet50_in1k{variant}/manifest.json")
}
# Labels of Table 9: folder → run that predicts them with the detector trained on VOC 07.
PREDICTIONS: dict[str, Run] = {
    f"pseudo-labels_r50-{start}_voc12": Run(
        "predict_faster-rcnn_r50_fpn_voc12",
        name=f"predictions_r50-{start}_voc12",
        checkpoint=f"work_dirs/faster-rcnn_r50-{start}_fpn_14e_voc07/epoch_14.pth",
    )
    for start in ("cls-in1k", "dap-in1k")
}
