"""Step 4 from a pre-trained detector (DAP); other settings as in finetune_cls.py.

For the detector that was pre-trained on boxes alone, and has no mask head, ``run.py`` passes
``allow_missing``.
"""

_base_ = ["./finetune_cls.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector", checkpoint="work_dirs/pretrain_masks/iter_600.pth"
    ),
    backbone=dict(init_cfg=None),
)
