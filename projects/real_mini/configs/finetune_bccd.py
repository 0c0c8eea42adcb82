"""Step 4 on blood cells (BCCD), a set in VOC layout with three classes and lists of its own."""

_base_ = ["./pretrain_lite0_sample-boxes.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector",
        checkpoint="work_dirs/pretrain_lite0_sample-boxes/iter_60.pth",
    ),
    backbone=dict(init_cfg=None),
    roi_head=dict(bbox_head=dict(num_classes=3)),
)
voc = dict(
    type="VOCDataset",
    data_root="data/",
    data_prefix=dict(sub_data_root="BCCD/"),
    metainfo=dict(classes=("RBC", "WBC", "Platelets")),
)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        _delete_=True,
        **voc,
        ann_file="BCCD/ImageSets/Main/train.txt",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="FilterAnnotations", min_gt_bbox_wh=(0, 0)),  # two boxes have no area
            dict(type="Resize", scale=(427, 320), keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **voc,
        ann_file="BCCD/ImageSets/Main/test.txt",
        test_mode=True,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(427, 320), keep_ratio=True),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                type="PackDetInputs",
                meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
            ),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="VOCMetric", metric="mAP", eval_mode="area")
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
train_cfg = dict(val_interval=60)
del voc
