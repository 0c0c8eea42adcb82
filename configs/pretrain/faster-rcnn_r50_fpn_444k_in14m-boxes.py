"""Step 3: Faster R-CNN R50-FPN on the pseudo boxes of ImageNet-14M (paper, section 4.1)."""

_base_ = [
    "../_base_/models/faster-rcnn_r50_fpn_frozen-bn.py",
    "../_base_/datasets/in1k_boxes.py",
    "../_base_/schedules/pretrain_in14m.py",
]
model = dict(
    backbone=dict(
        init_cfg=dict(
            type="Pretrained",
            checkpoint="work_dirs/cls_resnet50_64xb128_in14m/epoch_50.pth",
            prefix="backbone.",
        )
    ),
    roi_head=dict(bbox_head=dict(num_classes=21841)),
)
train_dataloader = dict(
    dataset=dict(
        ann_file="work_dirs/boxes_resnet50_in14m/manifest.json",
        data_prefix=dict(img="data/imagenet21k/train/"),
    )
)
