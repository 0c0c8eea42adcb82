"""Faster R-CNN with EfficientNet-lite0 and a narrow FPN, small enough for a CPU."""

_base_ = ["mmdet::_base_/models/faster-rcnn_r50_fpn.py", "./lite0.py"]

model = dict(
    data_preprocessor=_base_.lite0_preprocessor,
    backbone=_base_.lite0,
    neck=dict(in_channels=_base_.lite0_channels, out_channels=64, num_outs=4),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        # 32 to 256 px: images are half as large as usual.
        anchor_generator=dict(scales=[4], strides=[8, 16, 32, 64]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=64,
            finest_scale=56,
            featmap_strides=[8, 16, 32],
        ),
        bbox_head=dict(
            in_channels=64,
            fc_out_channels=256,
            # 1000 photographs do not train 4000 regressors; and one moves to the detection set.
            reg_class_agnostic=True,
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=300), rcnn=dict(sampler=dict(num=64))
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)
