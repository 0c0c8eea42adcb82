"""Faster R-CNN R50-FPN, 20 images a class of COCO: CLS, ImageNet-1k (paper, Figure 3)."""

_base_ = ["./faster-rcnn_r50-cls-in1k_fpn_coco-5shot.py"]

train_dataloader = dict(dataset=dict(ann_file="data/few_shot/coco_20shot_seed0/annotations.json"))
train_cfg = dict(max_iters=6000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1.0 / 3, begin=0, end=100, by_epoch=False),
    dict(type="MultiStepLR", milestones=[4000, 5333], gamma=0.1, by_epoch=False),
]
