"""Faster R-CNN R101-FPN on VOC 2007: CLS, ImageNet-14M (paper, Table 5)."""

_base_ = ["./faster-rcnn_r101-cls-in1k_fpn_14e_voc07.py"]

model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint="work_dirs/cls_resnet101_64xb128_in14m/epoch_50.pth", prefix="backbone."
        )
    )
)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-5))
