"""Faster R-CNN R101-FPN on VOC 2007: CLS, ImageNet-1k (paper, Table 5)."""

_base_ = ["./faster-rcnn_r50-cls-in1k_fpn_14e_voc07.py"]

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint="torchvision://resnet101")))
