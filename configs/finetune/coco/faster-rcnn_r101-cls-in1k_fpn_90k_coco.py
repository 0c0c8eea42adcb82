"""Faster R-CNN R101-FPN on COCO: CLS, ImageNet-1k (paper, Table 4)."""

_base_ = ["./faster-rcnn_r50-cls-in1k_fpn_90k_coco.py"]

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint="torchvision://resnet101")))
