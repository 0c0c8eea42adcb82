"""One pass over ImageNet-1k with batch 32 (paper, section 4.1; LR and warm-up of its code)."""

_base_ = ["../dap_runtime.py"]

train_cfg = dict(type="IterBasedTrainLoop", max_iters=40038, val_interval=5000)
val_cfg = dict(type="dap.HeldOutValLoop")
test_cfg = None
param_scheduler = [dict(type="LinearLR", start_factor=0.01, begin=0, end=2000, by_epoch=False)]
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.004, momentum=0.9, weight_decay=1e-4),
)
auto_scale_lr = dict(enable=True, base_batch_size=32)
default_hooks = dict(
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=5000, max_keep_ckpts=2),
    logger=dict(log_metric_by_epoch=False),  # else each validation is at step 0
    visualization=dict(type="dap.ValidationPicturesHook"),  # four images; num_images=0: none
)
log_processor = dict(by_epoch=False)
