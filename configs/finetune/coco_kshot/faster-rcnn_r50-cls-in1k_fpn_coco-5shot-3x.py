"""Faster R-CNN R50-FPN, 5 images a class of COCO, 3x: CLS, ImageNet-1k (paper, Table 10)."""

_base_ = ["./faster-rcnn_r50-cls-in1k_fpn_coco-5shot.py"]

train_cfg = dict(max_iters=9000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1.0 / 3, begin=0, end=100, by_epoch=False),
    dict(type="MultiStepLR", milestones=[6000, 8000], gamma=0.1, by_epoch=False),
]
