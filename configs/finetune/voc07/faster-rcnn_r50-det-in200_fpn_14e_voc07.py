"""Faster R-CNN R50-FPN on VOC 2007 from the labelled boxes of ILSVRC DET (paper, Table 8)."""

_base_ = ["./faster-rcnn_r50-cls-in1k_fpn_14e_voc07.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector",
        checkpoint="work_dirs/faster-rcnn_r50_fpn_5e_in200-det/epoch_5.pth",
    ),
    backbone=dict(init_cfg=None),
)
