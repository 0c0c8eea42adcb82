"""Faster R-CNN R101-FPN on VOC 07+12: CLS, ImageNet-1k (paper, Table 5)."""

_base_ = ["./faster-rcnn_r50-cls-in1k_fpn_14e_voc0712.py"]

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint="torchvision://resnet101")))
