"""Faster R-CNN R50-FPN on VOC 2007, learning curve: DAP, ImageNet-14M (paper, Figure 5)."""

_base_ = ["./faster-rcnn_r50-cls-in14m_fpn_4500it_voc07.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector",
        checkpoint="work_dirs/faster-rcnn_r50_fpn_444k_in14m-boxes/iter_443658.pth",
    ),
    backbone=dict(init_cfg=None),
)
