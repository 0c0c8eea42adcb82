"""A small classifier of the synthetic class folders, and the settings of its boxes."""

_base_ = ["mmpretrain::_base_/default_runtime.py"]

max_epochs = 12
model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="ResNet",
        depth=18,
        stem_channels=8,
        base_channels=8,
        strides=(1, 2, 2, 1),  # the last stage has stride 16, for a finer map
        style="pytorch",
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead", num_classes=3, in_channels=64, loss=dict(type="CrossEntropyLoss")
    ),
    data_preprocessor=dict(
        num_classes=3, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
    ),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CustomDataset",
        data_root="my_images",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="RandomResizedCrop", scale=96, crop_ratio_range=(0.4, 1.0)),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackInputs"),
        ],
    ),
)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.05))
param_scheduler = dict(type="CosineAnnealingLR", T_max=max_epochs, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs)
default_hooks = dict(checkpoint=dict(interval=max_epochs))
randomness = dict(seed=0)
work_dir = "work_dirs/classifier"
log_level = "ERROR"

pseudo_boxes = dict(short_sides=(96, 192))
