"""What Steps 3 and 4 share: a Faster R-CNN for two CPU cores, with the classifier's backbone.

Its backbone is narrow and has three stages; it has few RoIs and a small head.
"""

_base_ = ["mmdet::_base_/models/faster-rcnn_r50_fpn.py", "mmdet::_base_/default_runtime.py"]

custom_imports = dict(imports=["dap"], allow_failed_imports=False)  # lets checkpoints load
channels = 40
model = dict(
    backbone=dict(
        depth=18,
        num_stages=3,  # as in the classifier
        out_indices=(0, 1, 2),  # strides 4, 8, 16
        stem_channels=16,
        base_channels=16,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        norm_eval=False,
        frozen_stages=1,
        init_cfg=dict(
            type="Pretrained", checkpoint="work_dirs/classifier/iter_400.pth", prefix="backbone."
        ),
    ),
    neck=dict(in_channels=[16, 32, 64], out_channels=channels, num_outs=4),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(output_size=5, sampling_ratio=1),
            out_channels=channels,
            featmap_strides=[4, 8, 16, 32],
            finest_scale=24,
        ),
        bbox_head=dict(in_channels=channels, roi_feat_size=5, fc_out_channels=128),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=300, max_per_img=200),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler"),
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", weight_decay=0.05),
    clip_grad=dict(max_norm=2),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
