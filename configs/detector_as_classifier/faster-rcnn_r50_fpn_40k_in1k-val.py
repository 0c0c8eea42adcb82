"""The pre-trained detector, evaluated as a classifier of ImageNet-1k (paper, section 4.3).

``mim test mmdet THIS --checkpoint work_dirs/faster-rcnn_r50_fpn_40k_in1k-boxes/iter_40038.pth``
"""

_base_ = ["../pretrain/faster-rcnn_r50_fpn_40k_in1k-boxes.py"]

model = dict(backbone=dict(init_cfg=None))
test_cfg = dict(_delete_=True, type="TestLoop")
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="mmpretrain.ImageNet",
        data_root="data/imagenet",
        split="val",
        pipeline=[
            dict(type="LoadImageFromFile"),
            # The largest scale of Step 3; the paper does not give the scale of this test.
            dict(type="mmdet.Resize", scale=(1333, 640), keep_ratio=True),
            dict(
                type="mmdet.PackDetInputs",
                meta_keys=("img_path", "ori_shape", "img_shape", "scale_factor", "gt_label"),
            ),
        ],
    ),
)
test_evaluator = dict(type="dap.DetectorAsClassifier")
