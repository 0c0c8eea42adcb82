"""DINO R50 on COCO with MMDetection's recipe: DAP, ImageNet-1k."""

_base_ = ["./dino-4scale_r50-cls-in1k_12e_coco.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector",
        checkpoint="work_dirs/dino-4scale_r50_80k_in1k-boxes/iter_80073.pth",
    ),
    backbone=dict(init_cfg=None),
)
