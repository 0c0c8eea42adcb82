"""COCO with k images a class: LR and batch of the full data (paper, section 4.1).

The paper tunes the number of steps and does not print it: the config that inherits this sets
``train_cfg.max_iters`` and ``param_scheduler``.
"""

_base_ = ["./coco_90k.py"]

train_cfg = dict(val_interval=1000)
default_hooks = dict(checkpoint=dict(interval=1000))
