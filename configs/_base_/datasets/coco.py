"""mmdet's COCO 2017 at short side 800 (paper, section 4.1), for training by iterations."""

_base_ = ["mmdet::_base_/datasets/coco_detection.py"]

train_dataloader = dict(sampler=dict(type="InfiniteSampler"))  # 2 x 8 GPUs = 16
