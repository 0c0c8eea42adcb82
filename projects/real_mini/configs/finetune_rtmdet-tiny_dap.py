"""As finetune_rtmdet-tiny_cls.py, from the pre-trained detector (Step 4, DAP)."""

_base_ = ["./finetune_rtmdet-tiny_cls.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector", checkpoint="work_dirs/pretrain_rtmdet-tiny/iter_1200.pth"
    ),
    backbone=dict(init_cfg=None),
)
