"""The RPN of a Faster R-CNN alone, to measure the recall of its proposals (``mim test``)."""

_base_ = ["./finetune_faster-rcnn_cls.py"]

model = dict(
    _delete_=True,
    type="RPN",
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=dict(_base_.model.backbone, init_cfg=None),  # all weights come with the checkpoint
    neck=_base_.model.neck,
    rpn_head=_base_.model.rpn_head,
    train_cfg=None,
    test_cfg=dict(rpn=_base_.model.test_cfg.rpn),
)
test_evaluator = dict(
    _delete_=True,
    type="CocoMetric",
    ann_file="data/target/test.json",
    metric="proposal",  # proposal_fast fails with NumPy from 1.24 on
    metric_items=["AR@100"],
)
val_evaluator = test_evaluator
