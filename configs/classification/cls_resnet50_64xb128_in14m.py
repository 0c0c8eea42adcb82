"""Step 1: ResNet-50 on ImageNet-14M, 50 epochs, batch 8192 on 64 GPUs (paper, section 4.1)."""

_base_ = ["mmpretrain::resnet/resnet50_8xb128_coslr-90e_in21k.py"]
custom_imports = dict(imports=["dap"], allow_failed_imports=False)  # lets checkpoints load

model = dict(head=dict(num_classes=21841))
data_preprocessor = dict(num_classes=21841)
optim_wrapper = dict(optimizer=dict(lr=3.2, weight_decay=1e-5))
param_scheduler = [
    # The paper only says cosine. We add a warm-up, because training may diverge at LR 3.2.
    dict(
        type="LinearLR", start_factor=0.1, by_epoch=True, begin=0, end=5, convert_to_iter_based=True
    ),
    dict(type="CosineAnnealingLR", T_max=45, by_epoch=True, begin=5, end=50),
]
train_cfg = dict(max_epochs=50)
val_cfg = None  # the data set has no validation split
test_cfg = None
auto_scale_lr = dict(enable=True, base_batch_size=8192)
