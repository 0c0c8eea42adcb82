"""RetinaNet with EfficientNet-lite0 and a narrow FPN, small enough for a CPU."""

_base_ = ["mmdet::_base_/models/retinanet_r50_fpn.py"]

custom_imports = dict(imports=["dap", "mmpretrain.models"], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
    backbone=dict(
        _delete_=True,
        type="mmpretrain.TIMMBackbone",
        model_name="tf_efficientnet_lite0",
        features_only=True,
        out_indices=(1, 2, 3, 4),  # strides 4, 8, 16, 32
        init_cfg=dict(type="Pretrained", checkpoint="work_dirs/lite0.pth", prefix="backbone."),
    ),
    neck=dict(in_channels=[24, 40, 112, 320], out_channels=64),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        # One size a level, 24 to 384 px: with 1000 classes the last layer costs more than all else.
        anchor_generator=dict(octave_base_scale=3, scales_per_octave=1),
    ),
)
