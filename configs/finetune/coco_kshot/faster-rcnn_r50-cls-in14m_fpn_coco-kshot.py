"""Faster R-CNN R50-FPN, k images per class of COCO: CLS, ImageNet-14M (paper, Figure 3)."""

_base_ = ["./faster-rcnn_r50-cls-in1k_fpn_coco-kshot.py"]

model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint="work_dirs/cls_resnet50_64xb128_in14m/epoch_50.pth", prefix="backbone."
        )
    )
)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-5))
