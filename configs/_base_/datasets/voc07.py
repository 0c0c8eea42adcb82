"""VOC 2007 trainval / test at short side 640, both AP metrics (paper, section 4.1, Table 2)."""

_base_ = ["mmdet::_base_/datasets/voc0712.py", "./voc07_sets.py"]

train_dataloader = dict(
    batch_size=2,  # x 8 GPUs = 16
    dataset=dict(
        _delete_=True,
        **_base_.voc07_trainval,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="Resize", scale=(1066, 640), keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs"),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(1066, 640), keep_ratio=True),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                type="PackDetInputs",
                meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
            ),
        ]
    )
)
test_dataloader = val_dataloader
val_evaluator = _base_.voc_metrics
test_evaluator = val_evaluator
