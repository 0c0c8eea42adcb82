"""RTMDet-tiny from the classifier's backbone (Step 4, CLS)."""

_base_ = ["./_base_/rtmdet-tiny_lite0.py", "./_base_/finetune.py"]

model = dict(bbox_head=dict(num_classes=3))
optim_wrapper = dict(paramwise_cfg=dict(bypass_duplicate=True))  # its levels share layers
