"""Self-training of the CLS detector on VOC 2007 and pseudo labels of 2012 (paper, Table 9)."""

_base_ = [
    "../../_base_/models/faster-rcnn_r50_fpn_frozen-bn.py",
    "../../_base_/datasets/voc07_pseudo12.py",
    "../../_base_/schedules/self_training_2e.py",
]
model = dict(backbone=dict(init_cfg=None), roi_head=dict(bbox_head=dict(num_classes=20)))
load_from = "work_dirs/faster-rcnn_r50-cls-in1k_fpn_14e_voc07/epoch_14.pth"
