"""Faster R-CNN R50-FPN on COCO, pre-trained with a frozen backbone (paper, Table 3)."""

_base_ = ["./faster-rcnn_r50-cls-in1k_fpn_90k_coco.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector",
        checkpoint="work_dirs/faster-rcnn_r50_fpn_40k_in1k-boxes_frozen-backbone/iter_40038.pth",
    ),
    backbone=dict(init_cfg=None),
)
