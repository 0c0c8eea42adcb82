"""Pseudo boxes of ImageNet-1k as mmdet's training set (paper, section 4.1).

The 1000 categories are those of the store, in its order. 1000 images are held out: whether the
detector finds their boxes shows whether the training works.
"""

train_dataloader = dict(
    batch_size=2,  # x 16 GPUs = 32
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="dap.PseudoBoxDataset",
        part="train",
        held_out=1000,
        ann_file="work_dirs/boxes_resnet50_in1k/manifest.json",
        data_prefix=dict(img="data/imagenet/train/"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                type="RandomChoiceResize",
                scales=[(1333, 96), (1333, 160), (1333, 320), (1333, 640)],
                keep_ratio=True,
            ),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(  # files and held_out are those of the training set, see dap.HeldOutValLoop
        type="dap.PseudoBoxDataset",
        part="val",
        test_mode=True,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(1333, 640), keep_ratio=True),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                type="PackDetInputs",
                meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
            ),
        ],
    ),
)
val_evaluator = dict(type="dap.BoxLocalization")
