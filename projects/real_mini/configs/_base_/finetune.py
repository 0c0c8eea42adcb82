"""Step 4 on a set in COCO's format, all of it or k images a class; run.py names its files."""

_base_ = ["mmdet::_base_/default_runtime.py"]

iterations = 120
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler"),
    batch_sampler=dict(type="AspectRatioBatchSampler"),  # less padding
    dataset=dict(
        type="dap.CheckedCocoDataset",
        ann_file="data/target/train.json",
        data_prefix=dict(img="data/target/train/"),
        metainfo=dict(classes=()),  # all categories of the file
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                type="RandomChoiceResize",
                scales=[(384, side) for side in (160, 176, 192, 208)],
                keep_ratio=True,
            ),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="dap.CheckedCocoDataset",
        ann_file="data/target/test.json",
        data_prefix=dict(img="data/target/test/"),
        metainfo=dict(classes=()),
        test_mode=True,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(384, 192), keep_ratio=True),
            dict(
                type="PackDetInputs",
                meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
            ),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type="CocoMetric", ann_file="data/target/test.json", metric="bbox"),
    dict(  # the same with all classes as one: what is left is localisation
        type="CocoMetric",
        ann_file="data/target/test.json",
        metric="proposal",
        proposal_nums=(1, 10, 100),
        metric_items=["mAP", "mAP_50", "mAP_75"],
        prefix="agnostic",
    ),
]
test_evaluator = val_evaluator
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=40)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    # Chosen for CLS on VOC: AP50 38.9, with the full rate for the backbone 32.9.
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
    clip_grad=dict(max_norm=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type="MultiStepLR", milestones=[iterations * 4 // 5], by_epoch=False),
]
default_hooks = dict(
    logger=dict(interval=25, log_metric_by_epoch=False),
    checkpoint=dict(interval=iterations, by_epoch=False),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
