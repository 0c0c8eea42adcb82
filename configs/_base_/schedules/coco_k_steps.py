"""COCO with k images per class: LR and batch of the full data (paper, section 4.1).

The paper tunes the number of steps and does not print it: ``k_shot_schedules`` is ours. A config
trains as its entry ``5shot`` says. ``tools/reproduce.py`` and the command that
``tools/few_shot.py`` prints pass the values of other entries as options.
"""

_base_ = ["./coco_90k.py"]

k_shot_schedules = {
    "5shot": dict(max_iters=3000, milestones=[2000, 2666]),
    "10shot": dict(max_iters=4000, milestones=[2666, 3555]),
    "20shot": dict(max_iters=6000, milestones=[4000, 5333]),
    "50shot": dict(max_iters=10000, milestones=[6666, 8888]),
    "100shot": dict(max_iters=18000, milestones=[12000, 16000]),
    "5shot-3x": dict(max_iters=9000, milestones=[6000, 8000]),  # Table 10
}
train_cfg = dict(max_iters=3000, val_interval=1000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1.0 / 3, begin=0, end=100, by_epoch=False),
    dict(type="MultiStepLR", milestones=[2000, 2666], gamma=0.1, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=1000))
