"""Faster R-CNN R50-FPN on VOC 2007, learning curve: DAP, ImageNet-1k (paper, Figure 5)."""

_base_ = ["./faster-rcnn_r50-cls-in1k_fpn_4500it_voc07.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector",
        checkpoint="work_dirs/faster-rcnn_r50_fpn_40k_in1k-boxes/iter_40038.pth",
    ),
    backbone=dict(init_cfg=None),
)
