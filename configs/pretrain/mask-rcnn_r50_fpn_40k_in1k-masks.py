"""Step 3: Mask R-CNN R50-FPN on the boxes and masks of ImageNet-1k (Step 2 with ``--masks``)."""

_base_ = [
    "../_base_/models/mask-rcnn_r50_fpn_frozen-bn.py",
    "../_base_/datasets/in1k_boxes.py",
    "../_base_/schedules/pretrain_in1k.py",
]
model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50")),
    roi_head=dict(bbox_head=dict(num_classes=1000), mask_head=dict(num_classes=1000)),
)
pipeline = [*_base_.train_dataloader.dataset.pipeline]
pipeline[1] = dict(type="LoadAnnotations", with_bbox=True, with_mask=True)
train_dataloader = dict(dataset=dict(pipeline=pipeline))
