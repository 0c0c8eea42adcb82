"""RTMDet-s on VOC 2007 with MMDetection's recipe: DAP, ImageNet-1k."""

_base_ = ["./rtmdet_s-cls-in1k_300e_voc07.py"]

model = dict(
    init_cfg=dict(
        type="dap.PretrainedDetector",
        checkpoint="work_dirs/rtmdet_s_10k_in1k-boxes/iter_10010.pth",
    ),
    backbone=dict(init_cfg=None),
)
