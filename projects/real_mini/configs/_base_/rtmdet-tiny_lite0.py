"""RTMDet-tiny with EfficientNet-lite0; its neck and head as in MMDetection, without SyncBN."""

_base_ = ["./rtmdet-tiny.py", "./lite0.py"]

model = dict(
    data_preprocessor=_base_.lite0_preprocessor,
    backbone=_base_.lite0,
    neck=dict(in_channels=_base_.lite0_channels, norm_cfg=dict(type="BN")),
    bbox_head=dict(norm_cfg=dict(type="BN")),
)
