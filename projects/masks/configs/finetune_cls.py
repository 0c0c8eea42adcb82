"""Step 4 from the classifier's backbone (CLS): Mask R-CNN on 3 images per class with true masks."""

_base_ = ["../../quickstart/configs/finetune_cls.py", "./mask_head.py"]

model = _base_.mask_rcnn
model.roi_head.mask_head.num_classes = 8
model.test_cfg = dict(rcnn=dict(mask_thr_binary=0.5))
dataset = dict(
    _delete_=True,
    type="dap.CheckedCocoDataset",
    data_prefix=dict(img="data/shapes_voc/JPEGImages/"),
    metainfo=dict(classes=_base_.classes),
)
train_dataloader = dict(
    dataset=dict(
        **dataset,
        ann_file="data/shapes_voc/train.json",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            *_base_.train_dataloader.dataset.pipeline[2:],
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        **dataset,
        ann_file="data/shapes_voc/test.json",
        test_mode=True,
        pipeline=_base_.val_dataloader.dataset.pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file="data/shapes_voc/test.json", metric=["bbox", "segm"])
test_evaluator = val_evaluator
train_cfg = dict(val_interval=40)
del dataset
