"""VOC 2007 trainval / test at short side 640, both AP metrics (paper, section 4.1, Table 2).

Difficult objects are no training targets and count neither way in the metric, as VOC demands; no
object is dropped for being small. The precise values are ``voc_area/mAP`` and ``voc_07/mAP``.
"""

_base_ = ["mmdet::_base_/datasets/voc0712.py"]

voc_classes = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)  # in the order of the metric
train_dataloader = dict(
    batch_size=2,  # x 8 GPUs = 16
    dataset=dict(
        _delete_=True,
        type="VOCDataset",
        data_root="data/VOCdevkit/",
        ann_file="VOC2007/ImageSets/Main/trainval.txt",
        data_prefix=dict(sub_data_root="VOC2007/"),
        filter_cfg=dict(filter_empty_gt=True),
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
val_evaluator = [
    dict(type="VOCMetric", metric="mAP", eval_mode="area", prefix="voc_area"),
    dict(type="VOCMetric", metric="mAP", eval_mode="11points", prefix="voc_07"),
]
test_evaluator = val_evaluator
