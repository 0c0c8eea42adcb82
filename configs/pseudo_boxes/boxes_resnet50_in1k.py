"""Step 2: pseudo boxes of ImageNet-1k by ResNet-50 (paper, section 4.1, Tables A1 and A2).

With ``custom_hooks = [dict(type='dap.PseudoBoxHook')]``, a training writes them at its end.
"""

_base_ = ["../classification/cls_resnet50_8xb32_in1k.py"]

pseudo_boxes = dict(
    short_sides=(288, 576), flip=True, thresholds=(0.2, 0.3, 0.4, 0.5), nms_iou=0.8, rule="paper"
)
