"""EfficientNet-lite0 as the backbone of a detector, with its ImageNet weights."""

custom_imports = dict(imports=["dap"], allow_failed_imports=False)
lite0 = dict(
    _delete_=True,
    type="dap.FrozenTIMMBackbone",
    model_name="tf_efficientnet_lite0",
    features_only=True,
    out_indices=(2, 3, 4),  # strides 8, 16, 32: stride 4 would take more than half of the time
    # As the paper's ResNet: BN fixed, stem and first stage frozen.
    frozen=[f"timm_model.{name}" for name in ("conv_stem", "bn1", "blocks.0", "blocks.1")],
    fixed_batch_norm=True,
    init_cfg=dict(type="Pretrained", checkpoint="work_dirs/lite0.pth", prefix="backbone."),
)
lite0_channels = [40, 112, 320]
lite0_preprocessor = dict(mean=[127.0] * 3, std=[128.0] * 3)
