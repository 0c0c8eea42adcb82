"""Step 3: Faster R-CNN R101-FPN on the pseudo boxes of ImageNet-1k (paper, Tables 4 and 5)."""

_base_ = ["./faster-rcnn_r50_fpn_40k_in1k-boxes.py"]

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint="torchvision://resnet101")))
train_dataloader = dict(dataset=dict(ann_file="work_dirs/boxes_resnet101_in1k/manifest.json"))
