"""VOC with k images a class: LR and batch of the full data (paper, section 4.1).

The paper tunes the number of steps and does not print it: the config that inherits this sets
``train_cfg.max_iters`` and ``param_scheduler``.
"""

_base_ = ["./voc_14e.py"]

train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", val_interval=250)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=250))
log_processor = dict(by_epoch=False)
