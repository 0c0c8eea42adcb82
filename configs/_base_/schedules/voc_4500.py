"""voc_14e.py in 4,500 steps, with a validation every 500 (paper, section 4.1, Figure 5)."""

_base_ = ["./voc_14e.py"]

train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=4500, val_interval=500)
param_scheduler = [
    dict(type="LinearLR", start_factor=1.0 / 3, begin=0, end=500, by_epoch=False),
    # Epoch 10 of 14, for 5,011 images and batch 16.
    dict(type="MultiStepLR", milestones=[3214], gamma=0.1, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=500))
log_processor = dict(by_epoch=False)
