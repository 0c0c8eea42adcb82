"""Step 4 from the pre-trained detector (DAP); other settings as in finetune_cls.py."""

_base_ = ["./finetune_cls.py"]

model = dict(
    init_cfg=dict(type="dap.PretrainedDetector", checkpoint="work_dirs/pretrain_dap/iter_600.pth"),
    backbone=dict(init_cfg=None),
)
