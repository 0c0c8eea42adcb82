"""Mask R-CNN R50-FPN on COCO with MMDetection's recipe: CLS, ImageNet-1k."""

_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"

custom_imports = dict(imports=["dap"], allow_failed_imports=False)
# BN layers are frozen, as in the pre-training.
model = dict(backbone=dict(norm_cfg=dict(requires_grad=False)))
custom_hooks = [*_base_.get("custom_hooks", []), dict(type="dap.TotalBatchHook")]
auto_scale_lr = dict(enable=True)
