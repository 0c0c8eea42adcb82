"""Faster R-CNN on the pseudo boxes (Step 3)."""

_base_ = ["./_base_/faster-rcnn_lite0_fpn.py", "./_base_/pretrain.py"]

model = dict(roi_head=dict(bbox_head=dict(num_classes=_base_.num_classes)))
