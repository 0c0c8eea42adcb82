"""RetinaNet R50-FPN on COCO: DAP, ImageNet-1k (paper, Table 6)."""

_base_ = ["./retinanet_r50-cls-in1k_fpn_90k_coco.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector",
        checkpoint="work_dirs/retinanet_r50_fpn_80k_in1k-boxes/iter_80072.pth",
    ),
    backbone=dict(init_cfg=None),
)
