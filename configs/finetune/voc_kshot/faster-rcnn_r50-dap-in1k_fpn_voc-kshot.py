"""Faster R-CNN R50-FPN, k images per class of VOC 07+12: DAP, ImageNet-1k (paper, Figure 4)."""

_base_ = ["./faster-rcnn_r50-cls-in1k_fpn_voc-kshot.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector",
        checkpoint="work_dirs/faster-rcnn_r50_fpn_40k_in1k-boxes/iter_40038.pth",
    ),
    backbone=dict(init_cfg=None),
)
