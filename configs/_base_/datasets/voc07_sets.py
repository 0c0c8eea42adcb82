"""VOC 2007 trainval and test as data sets, without a pipeline, and both AP metrics (Table 2).

Objects marked as difficult are not used in training and are ignored in the evaluation, as VOC
defines it. Small objects are kept. ``voc_area/mAP`` and ``voc_07/mAP`` have full precision.

The data sets are variables, which configs use as ``_base_.NAME``: a config that inherits a whole
recipe of MMDetection cannot inherit a second base that sets ``train_dataloader``.
"""

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
voc07_trainval = dict(
    type="VOCDataset",
    data_root="data/VOCdevkit/",
    ann_file="VOC2007/ImageSets/Main/trainval.txt",
    data_prefix=dict(sub_data_root="VOC2007/"),
    filter_cfg=dict(filter_empty_gt=True),
)
voc07_test = dict(
    type="VOCDataset",
    data_root="data/VOCdevkit/",
    ann_file="VOC2007/ImageSets/Main/test.txt",
    data_prefix=dict(sub_data_root="VOC2007/"),
    test_mode=True,
)
voc_metrics = [
    dict(type="VOCMetric", metric="mAP", eval_mode="area", prefix="voc_area"),
    dict(type="VOCMetric", metric="mAP", eval_mode="11points", prefix="voc_07"),
]
