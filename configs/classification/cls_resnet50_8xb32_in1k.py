"""Step 1: ResNet-50 on ImageNet-1k, mmpretrain's config (the paper uses torchvision's weights)."""

_base_ = ["mmpretrain::resnet/resnet50_8xb32_in1k.py"]
custom_imports = dict(imports=["dap"], allow_failed_imports=False)  # lets checkpoints load
