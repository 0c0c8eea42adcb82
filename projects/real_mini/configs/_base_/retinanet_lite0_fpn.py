"""RetinaNet with EfficientNet-lite0 and a narrow FPN, small enough for a CPU."""

_base_ = ["mmdet::_base_/models/retinanet_r50_fpn.py", "./lite0.py"]

model = dict(
    data_preprocessor=_base_.lite0_preprocessor,
    backbone=_base_.lite0,
    neck=dict(in_channels=_base_.lite0_channels, out_channels=64, start_level=0),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        # One size a level, 24 to 384 px: with 1000 classes the last layer costs more than all else.
        anchor_generator=dict(octave_base_scale=3, scales_per_octave=1),
    ),
)
