"""Step 3: Faster R-CNN R101-FPN on ImageNet-14M.

The box regression is class-agnostic, as in the authors' code.
"""

_base_ = [
    "../_base_/models/faster-rcnn_r50_fpn_frozen-bn.py",
    "../_base_/datasets/in1k_boxes.py",
    "../_base_/schedules/pretrain_in14m.py",
]
model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(
            type="Pretrained",
            checkpoint="work_dirs/cls_resnet101_64xb128_in14m/epoch_50.pth",
            prefix="backbone.",
        ),
    ),
    roi_head=dict(bbox_head=dict(num_classes=21841, reg_class_agnostic=True)),
)
train_dataloader = dict(
    dataset=dict(
        ann_file="work_dirs/boxes_resnet101_in14m/manifest.json",
        data_prefix=dict(img="data/imagenet21k/train/"),
    )
)
