"""Predictions of a VOC detector on unlabelled images and their mirrors (paper, Table 9).

Run ``mim test mmdet THIS --checkpoint CHECKPOINT --tta``. The list of images is written by
``python tools/unlabelled_images.py data/VOCdevkit/VOC2012 --split trainval``.
"""

_base_ = ["../voc07/faster-rcnn_r50-cls-in1k_fpn_14e_voc07.py"]

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="dap.CheckedCocoDataset",
        ann_file="work_dirs/unlabelled_voc12/images.json",
        data_prefix=dict(img="data/VOCdevkit/VOC2012/JPEGImages/"),
        metainfo=dict(classes=_base_.voc_classes),
        test_mode=True,
    )
)
test_evaluator = dict(
    _delete_=True,
    type="CocoMetric",
    ann_file="work_dirs/unlabelled_voc12/images.json",
    metric="bbox",
    format_only=True,
    outfile_prefix="work_dirs/predict_faster-rcnn_r50_fpn_voc12/predictions",
)
# NMS over image and mirror: of overlapping boxes, the best one of either view keeps its score.
tta_model = dict(
    type="DetTTAModel",
    tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100),
)
tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale=(1066, 640), keep_ratio=True)],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [
                dict(
                    type="PackDetInputs",
                    meta_keys=(
                        "img_id",
                        "img_path",
                        "ori_shape",
                        "img_shape",
                        "scale_factor",
                        "flip",
                        "flip_direction",
                    ),
                )
            ],
        ],
    ),
]
