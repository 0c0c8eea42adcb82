"""RetinaNet R50-FPN on COCO: CLS, ImageNet-1k (paper, Table 6)."""

_base_ = [
    "../../_base_/models/retinanet_r50_fpn_frozen-bn.py",
    "../../_base_/datasets/coco.py",
    "../../_base_/schedules/coco_90k.py",
]
model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50")),
    bbox_head=dict(num_classes=80),
)
