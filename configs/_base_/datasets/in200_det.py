"""ILSVRC DET, 200 classes, at the scales of Step 3 (paper, section 4.3, Table 8).

``python tools/xml_to_coco.py data/ILSVRC/Annotations/DET/train data/ILSVRC/Data/DET/train --out
data/ILSVRC/det_train.json`` writes the annotation file. Its categories are WordNet ids.
"""

_base_ = ["./in1k_boxes.py"]

train_dataloader = dict(
    sampler=dict(type="DefaultSampler"),
    dataset=dict(
        _delete_=True,
        type="dap.CheckedCocoDataset",
        ann_file="data/ILSVRC/det_train.json",
        data_prefix=dict(img="data/ILSVRC/Data/DET/train/"),
        metainfo=dict(classes=()),  # all categories of the file
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=_base_.train_dataloader.dataset.pipeline,
    ),
)
val_dataloader = None
val_evaluator = None
