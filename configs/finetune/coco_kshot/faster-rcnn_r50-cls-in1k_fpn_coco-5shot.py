"""Faster R-CNN R50-FPN, 5 images a class of COCO: CLS, ImageNet-1k (paper, Figure 3)."""

_base_ = [
    "../../_base_/models/faster-rcnn_r50_fpn_frozen-bn.py",
    "../../_base_/datasets/coco_kshot.py",
    "../../_base_/schedules/coco_k_steps.py",
]
model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50")),
    roi_head=dict(bbox_head=dict(num_classes=80)),
)
train_dataloader = dict(dataset=dict(ann_file="data/few_shot/coco_5shot_seed0/annotations.json"))
train_cfg = dict(max_iters=3000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1.0 / 3, begin=0, end=100, by_epoch=False),
    dict(type="MultiStepLR", milestones=[2000, 2666], gamma=0.1, by_epoch=False),
]
