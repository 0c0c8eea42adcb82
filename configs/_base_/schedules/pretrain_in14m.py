"""One pass over ImageNet-14M with batch 32 (paper, section 4.1; LR and warm-up of its code)."""

_base_ = ["./pretrain_in1k.py"]

train_cfg = dict(max_iters=443658, val_interval=20000)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-5))
