"""90 K steps on COCO, LR .02, divided by 10 at 60 K and 80 K, batch 16 (paper, section 4.1)."""

_base_ = ["../dap_runtime.py"]

train_cfg = dict(type="IterBasedTrainLoop", max_iters=90000, val_interval=5000)  # curve of Figure 5
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
param_scheduler = [
    # The paper gives no warm-up. This is that of its code base, maskrcnn-benchmark.
    dict(type="LinearLR", start_factor=1.0 / 3, begin=0, end=500, by_epoch=False),
    dict(type="MultiStepLR", milestones=[60000, 80000], gamma=0.1, by_epoch=False),
]
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4),
)
auto_scale_lr = dict(enable=True, base_batch_size=16)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
