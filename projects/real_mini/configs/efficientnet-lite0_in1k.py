"""EfficientNet-lite0 as an mmpretrain classifier of ImageNet-1k, with its own preprocessing."""

_base_ = [
    "mmpretrain::_base_/schedules/imagenet_bs256.py",
    "mmpretrain::_base_/default_runtime.py",
]

model = dict(
    type="ImageClassifier",
    backbone=dict(type="TIMMBackbone", model_name="tf_efficientnet_lite0", features_only=False),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        in_channels=1280,
        loss=dict(type="CrossEntropyLoss"),
    ),
    data_preprocessor=dict(num_classes=1000, mean=[127.0] * 3, std=[128.0] * 3, to_rgb=True),
)
data_root = "data/imagenet/"
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeEdge", scale=256, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="CenterCrop", crop_size=224),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="ImageNet", data_root=data_root, data_prefix="train", pipeline=test_pipeline),
)
val_dataloader = train_dataloader
val_evaluator = dict(type="Accuracy", topk=(1, 5))
test_dataloader = train_dataloader
test_evaluator = val_evaluator
