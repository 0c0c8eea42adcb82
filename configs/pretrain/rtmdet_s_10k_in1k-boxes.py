"""Step 3: RTMDet-s on the pseudo boxes of ImageNet-1k, two passes at batch 256."""

_base_ = "mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py"

custom_imports = dict(imports=["dap"], allow_failed_imports=False)
num_classes = 1000
iterations = 10010
model = dict(bbox_head=dict(num_classes=num_classes))
# Multi-scale: own pipeline (CachedMosaic, RandomCrop, CachedMixUp), images resized down to 0.15.
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="CachedMosaic", img_scale=(640, 640), pad_val=114.0),
    dict(type="RandomResize", scale=(1280, 1280), ratio_range=(0.15, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(640, 640)),
    dict(type="YOLOXHSVRandomAug"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="Pad", size=(640, 640), pad_val=dict(img=(114, 114, 114))),
    dict(
        type="CachedMixUp",
        img_scale=(640, 640),
        ratio_range=(1.0, 1.0),
        max_cached_images=20,
        pad_val=(114, 114, 114),
    ),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(
    batch_size=32,
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
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=iterations, val_interval=1000)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=1000, max_keep_ckpts=1),
    pictures=dict(type="dap.DetectorPicturesHook", interval=1000),
)
custom_hooks = [
    dict(
        type="EMAHook",
        ema_type="ExpMomentumEMA",
        momentum=0.0002,
        update_buffers=True,
        priority=49,
    ),
    dict(type="NumClassCheckHook"),
    dict(type="dap.TotalBatchHook"),
]
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=True, base_batch_size=256)
# Constant behind a warm-up, as in the paper.
param_scheduler = [dict(type="LinearLR", start_factor=0.01, begin=0, end=1000, by_epoch=False)]
