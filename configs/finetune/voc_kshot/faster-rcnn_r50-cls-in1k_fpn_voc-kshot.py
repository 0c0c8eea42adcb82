"""Faster R-CNN R50-FPN, k images per class of VOC 07+12: CLS, ImageNet-1k (paper, Figure 4)."""

_base_ = [
    "../../_base_/models/faster-rcnn_r50_fpn_frozen-bn.py",
    "../../_base_/datasets/voc_kshot.py",
    "../../_base_/schedules/voc_k_steps.py",
]
model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50")),
    roi_head=dict(bbox_head=dict(num_classes=20)),
)
train_dataloader = dict(dataset=dict(ann_file="data/few_shot/voc0712_5shot_seed0/annotations.json"))
