"""Step 1: a narrow ResNet-18 without its last stage, on the shapes; its hook runs Step 2.

Paths are relative to the work directory, in which ``run.py`` runs the training.
"""

_base_ = ["mmpretrain::_base_/default_runtime.py"]

iterations = 400
model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="ResNet",
        depth=18,
        num_stages=3,  # smaller receptive field: sharper maps, half the time
        out_indices=(2,),
        stem_channels=16,
        base_channels=16,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        style="pytorch",
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=16,
        in_channels=64,
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
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler"),  # MMEngine sleeps 2 s between epochs
    dataset=dict(
        type="CustomDataset",
        data_root="data/shapes/train",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="RandomResizedCrop", scale=80, crop_ratio_range=(0.5, 1.0)),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackInputs"),
        ],
    ),
)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, begin=0, end=iterations // 4, by_epoch=False),
    dict(
        type="CosineAnnealingLR",
        begin=iterations // 4,
        end=iterations,
        by_epoch=False,
        eta_min=1e-6,
    ),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations)
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=100, by_epoch=False, max_keep_ckpts=2),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)

pseudo_boxes = dict(
    rule="extent",
    thresholds=(1.2,),  # times Otsu's threshold; the maps of this small network are wide
    short_sides=(192,),  # a third of 576, as images are about a third of ImageNet's
)
custom_hooks = [dict(type="dap.PseudoBoxHook", num_workers=1)]
