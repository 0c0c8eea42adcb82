"""Step 3 with masks: as the quick start's, and the mask head learns from the masks of the boxes."""

_base_ = ["../../quickstart/configs/pretrain_detector.py", "./mask_head.py"]

model = dict(
    type="MaskRCNN",
    roi_head=dict(
        mask_roi_extractor=_base_.mask_roi_extractor,
        mask_head=dict(**_base_.mask_head, num_classes=16),
    ),
    train_cfg=dict(rcnn=dict(mask_size=_base_.mask_size)),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            *_base_.train_dataloader.dataset.pipeline[2:],
        ],
    ),
)
