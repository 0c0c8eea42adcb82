"""Faster R-CNN R50-FPN, k images per class of VOC 07+12: DAP, ImageNet-14M (paper, Figure 4)."""

_base_ = ["./faster-rcnn_r50-cls-in14m_fpn_voc-kshot.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector",
        checkpoint="work_dirs/faster-rcnn_r50_fpn_444k_in14m-boxes/iter_443658.pth",
    ),
    backbone=dict(init_cfg=None),
)
