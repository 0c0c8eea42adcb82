"""Step 3 on the pseudo boxes of the sample photographs, one per ImageNet class."""

_base_ = ["./faster-rcnn_lite0_fpn.py", "mmdet::_base_/default_runtime.py"]

model = dict(roi_head=dict(bbox_head=dict(num_classes=1000)))
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler"),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="dap.PseudoBoxDataset",
        ann_file="work_dirs/boxes/manifest.json",
        data_prefix=dict(img="data/imagenet/train/"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                type="RandomChoiceResize",
                scales=[(640, 96), (640, 160), (640, 224)],
                keep_ratio=True,
            ),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ],
    ),
)
iterations = 60
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=5e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=2),
)
param_scheduler = [dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=iterations, by_epoch=False))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
