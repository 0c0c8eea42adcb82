"""Step 3: pre-train the whole detector on the pseudo boxes, from the classifier's backbone."""

_base_ = ["./detector.py"]

num_classes = 16
iterations = 600
model = dict(roi_head=dict(bbox_head=dict(num_classes=num_classes)))
train_dataloader = dict(
    dataset=dict(
        type="dap.PseudoBoxDataset",
        ann_file="work_dirs/classifier/pseudo_boxes/manifest.json",
        data_prefix=dict(img="data/shapes/train/"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                type="RandomChoiceResize",
                scales=[(48, 160), (64, 160), (96, 160), (128, 160)],
                keep_ratio=True,
            ),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ],
    ),
)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type="CosineAnnealingLR", begin=50, end=iterations, by_epoch=False, eta_min=1e-5),
]
default_hooks = dict(
    logger=dict(interval=25),
    checkpoint=dict(interval=150, by_epoch=False, max_keep_ckpts=2),
)
