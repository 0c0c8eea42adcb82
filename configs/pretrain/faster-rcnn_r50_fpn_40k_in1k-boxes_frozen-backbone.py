"""Step 3 with the whole backbone frozen; only FPN, RPN and RoI heads train (paper, Table 3)."""

_base_ = ["./faster-rcnn_r50_fpn_40k_in1k-boxes.py"]

model = dict(backbone=dict(frozen_stages=4))
