"""Mask R-CNN R50-FPN on COCO with MMDetection's recipe: DAP, ImageNet-1k."""

_base_ = ["./mask-rcnn_r50-cls-in1k_fpn_12e_coco.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector",
        checkpoint="work_dirs/mask-rcnn_r50_fpn_40k_in1k-boxes/iter_40038.pth",
        allow_missing="roi_head.mask_head",
    ),
    backbone=dict(init_cfg=None),
)
