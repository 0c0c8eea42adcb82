"""RetinaNet R50-FPN on VOC 2007: CLS, ImageNet-1k (paper, Table 7)."""

_base_ = [
    "../../_base_/models/retinanet_r50_fpn_frozen-bn.py",
    "../../_base_/datasets/voc07.py",
    "../../_base_/schedules/voc_14e.py",
]
model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50")),
    bbox_head=dict(num_classes=20),
)
