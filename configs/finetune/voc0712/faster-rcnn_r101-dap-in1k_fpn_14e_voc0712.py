"""Faster R-CNN R101-FPN on VOC 07+12: DAP, ImageNet-1k (paper, Table 5)."""

_base_ = ["./faster-rcnn_r101-cls-in1k_fpn_14e_voc0712.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector",
        checkpoint="work_dirs/faster-rcnn_r101_fpn_40k_in1k-boxes/iter_40038.pth",
    ),
    backbone=dict(init_cfg=None),
)
