"""The schedule of coco_90k.py, three times as long (paper, Table 10)."""

_base_ = ["./coco_90k.py"]

train_cfg = dict(max_iters=270000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1.0 / 3, begin=0, end=500, by_epoch=False),
    dict(type="MultiStepLR", milestones=[180000, 240000], gamma=0.1, by_epoch=False),
]
