"""The detectors of ``detectors.py``."""

from typing import Any

BOTH = {"masks": True, "box_masks": True}  # of the set to fine-tune on, and of the boxes
# Name in the table → config, options of new_configs, side of the images in pixels.
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "Faster R-CNN, R-50": ("faster-rcnn_r50_fpn_1x_coco", {}, 96),
    "Cascade R-CNN, R-50": ("cascade-rcnn_r50_fpn_1x_coco", {}, 96),
    "Mask R-CNN, R-50": ("mask-rcnn_r50_fpn_1x_coco", {"masks": True}, 96),
    "Mask R-CNN, R-50, boxes alone": ("mask-rcnn_r50_fpn_1x_coco", {}, 96),
    "Mask R-CNN, R-50, boxes with masks": ("mask-rcnn_r50_fpn_1x_coco", BOTH, 96),
    "RTMDet-Ins-tiny, boxes with masks": ("rtmdet-ins_tiny_8xb32-300e_coco", BOTH, 96),
    "RetinaNet, R-50": ("retinanet_r50_fpn_1x_coco", {}, 96),
    "FCOS, R-50": ("fcos_r50-caffe_fpn_gn-head_1x_coco", {}, 96),
    "ATSS, R-50": ("atss_r50_fpn_1x_coco", {}, 96),
    "GFL, R-50": ("gfl_r50_fpn_1x_coco", {}, 96),
    "TOOD, R-50": ("tood_r50_fpn_1x_coco", {}, 96),
    "RTMDet-tiny, CSPNeXt": ("rtmdet_tiny_8xb32-300e_coco", {}, 96),
    "RTMDet-s, CSPNeXt": ("rtmdet_s_8xb32-300e_coco", {}, 96),
    "YOLOX-tiny, CSPDarknet": ("yolox_tiny_8xb8-300e_coco", {}, 96),
    "CenterNet, R-18": ("centernet_r18_8xb16-crop512-140e_coco", {}, 128),
    "DETR, R-50": ("detr_r50_8xb2-150e_coco", {}, 96),
    "Deformable DETR, R-50": ("deformable-detr_r50_16xb2-50e_coco", {}, 96),
    "DAB-DETR, R-50": ("dab-detr_r50_8xb2-50e_coco", {}, 96),
    "DINO, R-50": ("dino-4scale_r50_8xb2-12e_coco", {}, 256),
    "Sparse R-CNN, R-50": ("sparse-rcnn_r50_fpn_1x_coco", {}, 96),
    "RetinaNet, Swin-T": ("retinanet_swin-t-p4-w7_fpn_1x_coco", {}, 96),
    "Mask R-CNN, Swin-T": ("mask-rcnn_swin-t-p4-w7_fpn_1x_coco", {"masks": True}, 96),
    "Mask R-CNN, ConvNeXt-T": (
        "mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco",
        {"masks": True},
        96,
    ),
    "Faster R-CNN, EfficientNet-lite0 of timm": (
        "faster-rcnn_r50_fpn_1x_coco",
        {"backbone": "timm:tf_efficientnet_lite0"},
        96,
    ),
    "RTMDet-tiny, ConvNeXt-A of timm": (
        "rtmdet_tiny_8xb32-300e_coco",
        {"backbone": "timm:convnext_atto"},
        96,
    ),
    "DINO, ResNet-18 of timm": (
        "dino-4scale_r50_8xb2-12e_coco",
        {"backbone": "timm:resnet18"},
        256,
    ),
}
