"""14 epochs on VOC, LR .01, .001 from epoch 10, batch 16 (paper, section 4.1)."""

_base_ = ["../dap_runtime.py"]

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=14, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
param_scheduler = [
    # The paper gives no warm-up. This is that of its code base, maskrcnn-benchmark.
    dict(type="LinearLR", start_factor=1.0 / 3, begin=0, end=500, by_epoch=False),
    dict(type="MultiStepLR", milestones=[10], gamma=0.1, by_epoch=True),
]
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4),
)
auto_scale_lr = dict(enable=True, base_batch_size=16)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=2))
