"""Step 3: DINO R50 on the pseudo boxes of ImageNet-1k, one pass at batch 16."""

_base_ = ["mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py", "../_base_/datasets/in1k_box_sets.py"]

custom_imports = dict(imports=["dap"], allow_failed_imports=False)
model = dict(bbox_head=dict(num_classes=1000))
pipeline = [*_base_.train_dataloader.dataset.pipeline]
pipeline[3] = _base_.short_sides  # scales of the paper, in place of DETR's resizing and cropping
train_dataloader = dict(
    sampler=dict(_delete_=True, type="InfiniteSampler", shuffle=True),
    dataset=dict(_delete_=True, **_base_.box_set, pipeline=pipeline),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True, **_base_.held_out_set, pipeline=_base_.val_dataloader.dataset.pipeline
    )
)
val_evaluator = dict(_delete_=True, type="dap.BoxLocalization")
val_cfg = dict(_delete_=True, type="dap.HeldOutValLoop")
test_dataloader = test_evaluator = test_cfg = None
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=80073, val_interval=5000)
# Constant after a warm-up, as in the paper.
param_scheduler = [dict(type="LinearLR", start_factor=0.01, begin=0, end=500, by_epoch=False)]
auto_scale_lr = dict(enable=True)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=2),
    logger=dict(log_metric_by_epoch=False),
    visualization=dict(type="dap.ValidationPicturesHook"),
)
custom_hooks = [
    dict(type="NumClassCheckHook"),
    dict(type="dap.TotalBatchHook"),
    dict(type="dap.ResumedDataHook"),
]
log_processor = dict(by_epoch=False)
