"""5 epochs with batch 32; other settings as in pretrain_in1k.py (paper, section 4.3, Table 8)."""

_base_ = ["./pretrain_in1k.py"]

val_cfg = None
train_cfg = dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=5)
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
log_processor = dict(by_epoch=True)
