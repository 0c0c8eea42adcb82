"""VOC 2007 + 2012 trainval / VOC 2007 test at short side 640 (paper, section 4.1, Table 2).

Each image is used once per epoch. All other settings are those of VOC 2007.
"""

_base_ = ["./voc07.py"]

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        ignore_keys=["dataset_type"],
        datasets=[
            dict(
                type="VOCDataset",
                data_root="data/VOCdevkit/",
                ann_file=f"{year}/ImageSets/Main/trainval.txt",
                data_prefix=dict(sub_data_root=f"{year}/"),
                filter_cfg=dict(filter_empty_gt=True),
                pipeline=_base_.train_dataloader.dataset.pipeline,
            )
            for year in ("VOC2007", "VOC2012")
        ],
    )
)
