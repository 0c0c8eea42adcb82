"""Faster R-CNN R50-FPN, 20 images a class of VOC 07+12: CLS, ImageNet-1k (paper, Figure 4)."""

_base_ = ["./faster-rcnn_r50-cls-in1k_fpn_voc-5shot.py"]

train_dataloader = dict(
    dataset=dict(ann_file="data/few_shot/voc0712_20shot_seed0/annotations.json")
)
train_cfg = dict(max_iters=1000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1.0 / 3, begin=0, end=100, by_epoch=False),
    dict(type="MultiStepLR", milestones=[714], gamma=0.1, by_epoch=False),
]
