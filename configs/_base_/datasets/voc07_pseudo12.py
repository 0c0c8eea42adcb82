"""VOC 2007 trainval with its boxes, VOC 2012 trainval with pseudo labels (paper, Table 9)."""

_base_ = ["./voc07.py"]

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        ignore_keys=["dataset_type", "palette"],
        datasets=[
            _base_.train_dataloader.dataset,
            dict(
                type="dap.CheckedCocoDataset",
                ann_file="work_dirs/pseudo-labels_r50-cls-in1k_voc12/annotations.json",
                data_prefix=dict(img="data/VOCdevkit/VOC2012/JPEGImages/"),
                metainfo=dict(classes=_base_.voc_classes),
                filter_cfg=dict(filter_empty_gt=True),
                pipeline=_base_.train_dataloader.dataset.pipeline,
            ),
        ],
    )
)
