"""RetinaNet R50-FPN with frozen BN layers, stem and stage 1 (paper, section 4.1)."""

_base_ = ["mmdet::_base_/models/retinanet_r50_fpn.py"]

model = dict(backbone=dict(frozen_stages=1, norm_eval=True, norm_cfg=dict(requires_grad=False)))
