"""Step 1: ResNet-101 on ImageNet-14M, 50 epochs, batch 8192 on 64 GPUs (paper, section 4.1)."""

_base_ = ["./cls_resnet50_64xb128_in14m.py"]

model = dict(backbone=dict(depth=101))
