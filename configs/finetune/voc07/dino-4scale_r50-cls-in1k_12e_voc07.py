"""DINO R50 on VOC 2007 with MMDetection's recipe: CLS, ImageNet-1k."""

_base_ = ["../coco/dino-4scale_r50-cls-in1k_12e_coco.py", "../../_base_/datasets/voc07_sets.py"]

model = dict(bbox_head=dict(num_classes=20))
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        **_base_.voc07_trainval,
        pipeline=_base_.train_dataloader.dataset.pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True, **_base_.voc07_test, pipeline=_base_.val_dataloader.dataset.pipeline
    )
)
test_dataloader = dict(
    dataset=dict(
        _delete_=True, **_base_.voc07_test, pipeline=_base_.test_dataloader.dataset.pipeline
    )
)
val_evaluator = _base_.voc_metrics
test_evaluator = val_evaluator
