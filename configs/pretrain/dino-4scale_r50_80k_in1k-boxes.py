"""Step 3: DINO R50 on the pseudo boxes of ImageNet-1k, one pass at batch 16."""

_base_ = "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py"

custom_imports = dict(imports=["dap"], allow_failed_imports=False)
num_classes = 1000
iterations = 80073
model = dict(bbox_head=dict(num_classes=num_classes))
# Multi-scale: short sides 96, 160, 320, 640, as in the paper.
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandomChoiceResize",
        scales=[(1333, 96), (1333, 160), (1333, 320), (1333, 640)],
        keep_ratio=True,
    ),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(
    batch_size=2,
    sampler=dict(_delete_=True, type="InfiniteSampler", shuffle=True),
    dataset=dict(
        _delete_=True,
        type="dap.PseudoBoxDataset",
        ann_file="work_dirs/boxes_resnet50_in1k/manifest.json",
        data_prefix=dict(img="data/imagenet/train/"),
        part="train",
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=pipeline,
    ),
)
# Images that the training set holds out.
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="dap.PseudoBoxDataset",
        part="val",
        test_mode=True,
        pipeline=_base_.val_dataloader.dataset.pipeline,
    ),
)
val_evaluator = dict(_delete_=True, type="dap.BoxLocalization")
val_cfg = dict(_delete_=True, type="dap.HeldOutValLoop")
test_dataloader = None
test_evaluator = None
test_cfg = None
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=iterations, val_interval=5000)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=1),
    pictures=dict(type="dap.DetectorPicturesHook", interval=5000),
)
custom_hooks = [dict(type="NumClassCheckHook"), dict(type="dap.TotalBatchHook")]
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=True)
# Constant behind a warm-up, as in the paper.
param_scheduler = [dict(type="LinearLR", start_factor=0.01, begin=0, end=500, by_epoch=False)]
