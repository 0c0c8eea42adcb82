"""Faster R-CNN R50-FPN on VOC 2007, learning curve: CLS, ImageNet-14M (paper, Figure 5)."""

_base_ = ["./faster-rcnn_r50-cls-in1k_fpn_4500it_voc07.py"]

model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint="work_dirs/cls_resnet50_64xb128_in14m/epoch_50.pth", prefix="backbone."
        )
    )
)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-5))
