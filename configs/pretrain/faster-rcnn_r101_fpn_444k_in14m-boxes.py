"""Step 3: Faster R-CNN R101-FPN on ImageNet-14M.

The box regression is class-agnostic, as in the authors' code.
"""

_base_ = ["./faster-rcnn_r50_fpn_444k_in14m-boxes.py"]

model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(checkpoint="work_dirs/cls_resnet101_64xb128_in14m/epoch_50.pth"),
    ),
    roi_head=dict(bbox_head=dict(reg_class_agnostic=True)),
)
train_dataloader = dict(dataset=dict(ann_file="work_dirs/boxes_resnet101_in14m/manifest.json"))
