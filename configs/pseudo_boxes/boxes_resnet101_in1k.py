"""Step 2: pseudo boxes of ImageNet-1k by ResNet-101 (paper, section 4.1)."""

_base_ = ["../classification/cls_resnet101_8xb32_in1k.py"]

pseudo_boxes = dict(
    short_sides=(288, 576), flip=True, thresholds=(0.2, 0.3, 0.4, 0.5), nms_iou=0.8, rule="paper"
)
