"""RTMDet-tiny on the pseudo boxes (Step 3)."""

_base_ = ["./_base_/rtmdet-tiny_lite0.py", "./_base_/pretrain.py"]

model = dict(bbox_head=dict(num_classes=_base_.num_classes))
optim_wrapper = dict(paramwise_cfg=dict(bypass_duplicate=True))  # its levels share layers
