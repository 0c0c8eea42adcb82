"""What makes the quick start's Faster R-CNN a Mask R-CNN.

``mask_rcnn`` is a variable, which configs use as ``_base_.mask_rcnn``, because a config cannot
inherit two bases that set ``model``. Each config sets the number of classes of the mask head.
"""

mask_rcnn = dict(
    type="MaskRCNN",
    roi_head=dict(
        mask_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=10, sampling_ratio=1),
            out_channels=40,
            featmap_strides=[4, 8, 16, 32],
            finest_scale=24,
        ),
        mask_head=dict(
            type="FCNMaskHead",
            num_convs=2,
            in_channels=40,
            conv_out_channels=40,
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True),
        ),
    ),
    train_cfg=dict(rcnn=dict(mask_size=20)),  # side of the mask head's output
)
