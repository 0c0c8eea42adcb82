"""Step 4 from the classifier's backbone (CLS): 3 images per class of other shapes."""

_base_ = ["./detector.py"]

classes = ("hexagon", "kite", "tee", "frame", "chevron", "four_star", "drop", "house")
iterations = 120
model = dict(roi_head=dict(bbox_head=dict(num_classes=8)))
dataset = dict(
    type="VOCDataset",
    data_root="data/",
    data_prefix=dict(sub_data_root="shapes_voc/"),
    metainfo=dict(classes=classes),
)
train_dataloader = dict(
    dataset=dict(
        **dataset,
        ann_file="shapes_voc/ImageSets/Main/train.txt",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="RandomChoiceResize", scales=[(96, 160), (128, 160)], keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        ann_file="shapes_voc/ImageSets/Main/test.txt",
        test_mode=True,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(128, 128), keep_ratio=True),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                type="PackDetInputs",
                meta_keys=(
                    "img_id",
                    "img_path",
                    "ori_shape",
                    "img_shape",
                    "scale_factor",
                    "instances",
                ),
            ),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoMetric", metric="bbox")
test_evaluator = val_evaluator
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=20)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(optimizer=dict(lr=4e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=10, by_epoch=False),
    dict(type="MultiStepLR", milestones=[96], by_epoch=False),
]
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(interval=iterations, by_epoch=False),
)
del dataset
