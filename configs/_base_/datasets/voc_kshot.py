"""Images drawn from VOC 2007 + 2012 trainval / VOC 2007 test (paper, section 4.1, Figure 4).

``python tools/few_shot.py --voc data/VOCdevkit/VOC2007 data/VOCdevkit/VOC2012 --shots 5 10``
writes the annotation files. A config that inherits this one sets ``ann_file`` to one of them. Other
COCO files must have VOC's 20 category names, in any order.
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
