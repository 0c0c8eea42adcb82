"""RTMDet-s on COCO with MMDetection's recipe: CLS, ImageNet-1k."""

_base_ = "mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py"

custom_imports = dict(imports=["dap"], allow_failed_imports=False)
custom_hooks = [*_base_.get("custom_hooks", []), dict(type="dap.TotalBatchHook")]
auto_scale_lr = dict(enable=True, base_batch_size=256)
