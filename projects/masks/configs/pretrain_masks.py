"""Step 3 of the quick start with masks: the mask head is trained on the masks of the boxes."""

_base_ = ["../../quickstart/configs/pretrain_detector.py", "./mask_head.py"]

model = _base_.mask_rcnn
model.roi_head.mask_head.num_classes = 16
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            *_base_.train_dataloader.dataset.pipeline[2:],
        ],
    ),
)
