"""Step 3 on the pseudo boxes of the photographs, one per ImageNet class."""

_base_ = ["mmdet::_base_/default_runtime.py"]

num_classes = 1000
iterations = 1200
side = 160  # of a photograph in the mosaic, at most
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler"),
    dataset=dict(
        type="MultiImageMixDataset",
        dataset=dict(
            type="dap.PseudoBoxDataset",
            ann_file="work_dirs/boxes/manifest.json",
            data_prefix=dict(img="data/imagenet/train/"),
            filter_cfg=dict(filter_empty_gt=True),
            pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True)],
        ),
        # One photograph or four, cropped where they meet: objects of all sizes, from an eighth of
        # the image to all of it, some of them cut off.
        pipeline=[
            dict(type="Mosaic", img_scale=(side, side), pad_val=127.0, prob=0.5),
            dict(
                type="RandomChoiceResize",
                scales=[(size, size) for size in (128, 160, 192, 224, 256)],
                keep_ratio=True,
            ),
            dict(type="RandomFlip", prob=0.5),
            # An image that loses all its boxes is background; by default it ends the training.
            dict(type="FilterAnnotations", min_gt_bbox_wh=(4, 4), keep_empty=False),
            dict(type="PackDetInputs"),
        ],
    ),
)
test_dataloader = dict(  # for the second round, in which the detector labels the photographs again
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="dap.PseudoBoxDataset",
        ann_file="work_dirs/boxes/manifest.json",
        data_prefix=dict(img="data/imagenet/train/"),
        test_mode=True,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(256, 256), keep_ratio=True),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                type="PackDetInputs",
                meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
            ),
        ],
    ),
)
test_evaluator = dict(type="dap.BoxLocalization")
test_cfg = dict(type="TestLoop")
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
    clip_grad=dict(max_norm=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=100, by_epoch=False),
    dict(type="CosineAnnealingLR", begin=100, end=iterations, by_epoch=False, eta_min=1e-5),
]
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=iterations, by_epoch=False))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
