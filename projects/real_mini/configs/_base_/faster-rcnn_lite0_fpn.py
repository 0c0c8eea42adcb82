"""Faster R-CNN with EfficientNet-lite0 and a narrow FPN, small enough for a CPU."""

_base_ = ["mmdet::_base_/models/faster-rcnn_r50_fpn.py"]

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
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4]),  # 16 to 256 px: images are half as large as usual
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(use_torchvision=True),  # on a CPU twice as fast as mmcv's
            out_channels=64,
            finest_scale=28,
        ),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=300), rcnn=dict(sampler=dict(num=64))
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)
