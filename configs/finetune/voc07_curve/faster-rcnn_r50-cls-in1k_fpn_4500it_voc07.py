"""Faster R-CNN R50-FPN on VOC 2007, learning curve: CLS, ImageNet-1k (paper, Figure 5)."""

_base_ = [
    "../../_base_/models/faster-rcnn_r50_fpn_frozen-bn.py",
    "../../_base_/datasets/voc07.py",
    "../../_base_/schedules/voc_4500.py",
]
model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50")),
    roi_head=dict(bbox_head=dict(num_classes=20)),
)
