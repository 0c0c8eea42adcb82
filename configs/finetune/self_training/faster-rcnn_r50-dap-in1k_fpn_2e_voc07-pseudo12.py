"""Self-training of the DAP detector on VOC 2007 and pseudo labels of 2012 (paper, Table 9)."""

_base_ = ["./faster-rcnn_r50-cls-in1k_fpn_2e_voc07-pseudo12.py"]

voc07, pseudo12 = _base_.train_dataloader.dataset.datasets
train_dataloader = dict(
    dataset=dict(
        datasets=[
            voc07,
            dict(pseudo12, ann_file="work_dirs/pseudo-labels_r50-dap-in1k_voc12/annotations.json"),
        ]
    )
)
load_from = "work_dirs/faster-rcnn_r50-dap-in1k_fpn_14e_voc07/epoch_14.pth"
