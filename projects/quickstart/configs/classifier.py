"""Step 1: ResNet-18 with few channels on the shapes; Step 2 follows by its hook.

Paths are relative to the folder the command runs in, as ``run.py`` does.
"""

_base_ = ["mmpretrain::_base_/default_runtime.py"]

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="ResNet",
        depth=18,
        stem_channels=16,
        base_channels=16,
        strides=(1, 2, 2, 1),  # the last stage stays at stride 16: a finer map
        style="pytorch",
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=16,
        in_channels=128,
        loss=dict(type="CrossEntropyLoss"),
    ),
    data_preprocessor=dict(
        num_classes=16,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CustomDataset",
        data_root="data/shapes/train",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="RandomResizedCrop", scale=96, crop_ratio_range=(0.5, 1.0)),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackInputs"),
        ],
    ),
)
max_epochs = 12
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.05))
param_scheduler = [
    dict(type="OneCycleLR", eta_max=3e-3, total_steps=max_epochs * 38, by_epoch=False)
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs)
default_hooks = dict(
    logger=dict(interval=19), checkpoint=dict(interval=max_epochs, max_keep_ckpts=1)
)
randomness = dict(seed=0)

pseudo_boxes = dict(short_sides=(96, 192))  # objects and network are a third of ImageNet's
pseudo_box_pictures = 8  # in the visualizer, while the boxes are made
custom_hooks = [dict(type="dap.PseudoBoxHook", num_workers=1)]
