"""Step 4 from a pre-trained detector (DAP); all else is as in finetune_cls.py.

The one that was pre-trained on boxes alone has no mask head: ``allow_missing`` in the command.
"""

_base_ = ["./finetune_cls.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector", checkpoint="work_dirs/pretrain_masks/iter_600.pth"
    ),
    backbone=dict(init_cfg=None),
)
