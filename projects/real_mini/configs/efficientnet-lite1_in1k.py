"""EfficientNet-lite1 as an mmpretrain classifier of ImageNet-1k, with its own preprocessing."""

_base_ = ["./efficientnet-lite0_in1k.py"]

model = dict(backbone=dict(model_name="tf_efficientnet_lite1"))
