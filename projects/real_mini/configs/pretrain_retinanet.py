"""RetinaNet on the pseudo boxes (Step 3)."""

_base_ = ["./_base_/retinanet_lite0_fpn.py", "./_base_/pretrain.py"]

model = dict(bbox_head=dict(num_classes=_base_.num_classes))
