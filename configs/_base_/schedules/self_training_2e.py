"""2 more epochs at the last LR of voc_14e.py (paper, section 4.3, Table 9)."""

_base_ = ["./voc_14e.py"]

train_cfg = dict(max_epochs=2)
param_scheduler = []
optim_wrapper = dict(optimizer=dict(lr=0.001))  # not given in the paper
