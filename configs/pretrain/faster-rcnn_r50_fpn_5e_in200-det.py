"""Faster R-CNN R50-FPN on the true boxes of ILSVRC DET, for comparison (paper, Table 8)."""

_base_ = [
    "../_base_/models/faster-rcnn_r50_fpn_frozen-bn.py",
    "../_base_/datasets/in200_det.py",
    "../_base_/schedules/pretrain_5e.py",
]
model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50")),
    roi_head=dict(bbox_head=dict(num_classes=200)),
)
