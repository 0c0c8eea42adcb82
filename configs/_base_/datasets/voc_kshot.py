"""Images drawn from VOC 2007 + 2012 trainval / VOC 2007 test (paper, section 4.1, Figure 4).

``python tools/few_shot.py --voc data/VOCdevkit/VOC2007 data/VOCdevkit/VOC2012 --shots 5 10`` makes
such files; the config that inherits this names one of them in ``ann_file``. Any COCO file with
VOC's 20 names will do, in whatever order it has them.
"""

_base_ = ["./voc07.py"]

train_dataloader = dict(
    sampler=dict(type="InfiniteSampler"),
    dataset=dict(
        _delete_=True,
        type="dap.CheckedCocoDataset",
        data_prefix=dict(img="data/VOCdevkit/"),
        metainfo=dict(classes=_base_.voc_classes),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=_base_.train_dataloader.dataset.pipeline,
    ),
)
