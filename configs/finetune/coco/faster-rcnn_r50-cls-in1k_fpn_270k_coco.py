"""Faster R-CNN R50-FPN on COCO, 3x: CLS, ImageNet-1k (paper, Table 10)."""

_base_ = [
    "../../_base_/models/faster-rcnn_r50_fpn_frozen-bn.py",
    "../../_base_/datasets/coco.py",
    "../../_base_/schedules/coco_270k.py",
]
model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50")),
    roi_head=dict(bbox_head=dict(num_classes=80)),
)
