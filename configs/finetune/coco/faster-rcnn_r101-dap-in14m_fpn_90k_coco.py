"""Faster R-CNN R101-FPN on COCO: DAP, ImageNet-14M (paper, Table 4)."""

_base_ = ["./faster-rcnn_r101-cls-in14m_fpn_90k_coco.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector",
        checkpoint="work_dirs/faster-rcnn_r101_fpn_444k_in14m-boxes/iter_443658.pth",
    ),
    backbone=dict(init_cfg=None),
)
