"""DINO R50 on COCO with MMDetection's recipe: CLS, ImageNet-1k."""

_base_ = "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py"

custom_imports = dict(imports=["dap"], allow_failed_imports=False)
custom_hooks = [*_base_.get("custom_hooks", []), dict(type="dap.TotalBatchHook")]
auto_scale_lr = dict(enable=True)
