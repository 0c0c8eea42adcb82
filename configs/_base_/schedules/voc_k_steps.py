"""VOC with k images per class: LR and batch of the full data (paper, section 4.1).

The paper tunes the number of steps and does not print it: ``k_shot_schedules`` is ours. A config
trains as its entry ``5shot`` says. ``tools/reproduce.py`` and the command that
``tools/few_shot.py`` prints pass the values of other entries as options.
"""

_base_ = ["./voc_14e.py"]

k_shot_schedules = {
    "5shot": dict(max_iters=500, milestones=[357]),
    "10shot": dict(max_iters=750, milestones=[536]),
    "20shot": dict(max_iters=1000, milestones=[714]),
    "50shot": dict(max_iters=1500, milestones=[1071]),
    "100shot": dict(max_iters=2500, milestones=[1786]),
    "5shot-3x": dict(max_iters=1500, milestones=[1071]),  # Table 10
}
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=500, val_interval=250)
param_scheduler = [
    dict(type="LinearLR", start_factor=1.0 / 3, begin=0, end=100, by_epoch=False),
    dict(type="MultiStepLR", milestones=[357], gamma=0.1, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=250))
log_processor = dict(by_epoch=False)
