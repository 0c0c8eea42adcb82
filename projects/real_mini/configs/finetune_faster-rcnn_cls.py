"""Faster R-CNN from the classifier's backbone (Step 4, CLS)."""

_base_ = ["./_base_/faster-rcnn_lite0_fpn.py", "./_base_/finetune.py"]

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
