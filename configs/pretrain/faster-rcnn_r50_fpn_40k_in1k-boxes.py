"""Step 3: Faster R-CNN R50-FPN on the pseudo boxes of ImageNet-1k (paper, section 4.1)."""

_base_ = [
    "../_base_/models/faster-rcnn_r50_fpn_frozen-bn.py",
    "../_base_/datasets/in1k_boxes.py",
    "../_base_/schedules/pretrain_in1k.py",
]
model = dict(  # backbone of torchvision's classifier, as in the paper
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50")),
    roi_head=dict(bbox_head=dict(num_classes=1000)),
)
