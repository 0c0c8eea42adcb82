"""Step 4 from the classifier's backbone (CLS): a few images of another detection set."""

_base_ = ["./detector.py"]

iterations = 30
train_dataloader = dict(
    dataset=dict(
        type="dap.CheckedCocoDataset",
        ann_file="target/train/annotations.json",
        data_prefix=dict(img="target/train/images/"),
        metainfo=dict(classes=()),  # all categories of the file
    )
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="dap.CheckedCocoDataset",
        ann_file="target/test/annotations.json",
        data_prefix=dict(img="target/test/images/"),
        metainfo=dict(classes=()),
        test_mode=True,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(128, 96), keep_ratio=True),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                type="PackDetInputs",
                meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
            ),
        ],
    ),
)
val_evaluator = dict(type="CocoMetric", metric="bbox", ann_file="target/test/annotations.json")
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=10)
val_cfg = dict(type="ValLoop")
param_scheduler = dict(type="LinearLR", start_factor=0.01, begin=0, end=5, by_epoch=False)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False), checkpoint=dict(interval=iterations, by_epoch=False)
)
work_dir = "work_dirs/cls"
