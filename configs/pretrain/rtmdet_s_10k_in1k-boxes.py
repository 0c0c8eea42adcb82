"""Step 3: RTMDet-s on the pseudo boxes of ImageNet-1k, two passes at batch 256."""

_base_ = ["mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py", "../_base_/datasets/in1k_box_sets.py"]

custom_imports = dict(imports=["dap"], allow_failed_imports=False)
model = dict(bbox_head=dict(num_classes=1000))
# Keeps Mosaic and MixUp. The smallest ratio is that of the paper's scales, 96 / 640.
pipeline = [*_base_.train_dataloader.dataset.pipeline]
pipeline[3] = {**pipeline[3], "ratio_range": (0.15, 2.0)}
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
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=10010, val_interval=1000)
# Constant after a warm-up, as in the paper.
param_scheduler = [dict(type="LinearLR", start_factor=0.01, begin=0, end=1000, by_epoch=False)]
auto_scale_lr = dict(enable=True, base_batch_size=256)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=1000, max_keep_ckpts=2),
    logger=dict(log_metric_by_epoch=False),
    visualization=dict(type="dap.ValidationPicturesHook"),
)
custom_hooks = [  # the recipe's moving average, without its switch of the pipeline at epoch 280
    _base_.custom_hooks[0],
    dict(type="NumClassCheckHook"),
    dict(type="dap.TotalBatchHook"),
    dict(type="dap.ResumedDataHook"),
]
log_processor = dict(by_epoch=False)
