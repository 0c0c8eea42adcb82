"""RetinaNet from the classifier's backbone (Step 4, CLS)."""

_base_ = ["./_base_/retinanet_lite0_fpn.py", "./_base_/finetune.py"]

model = dict(bbox_head=dict(num_classes=3))
