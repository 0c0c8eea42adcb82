"""Images drawn from COCO train2017 / val2017 (paper, section 4.1, Figure 3).

``python tools/few_shot.py --coco data/coco/annotations/instances_train2017.json --shots 5 10``
makes such files; the config that inherits this names one of them in ``ann_file``. Any COCO file
with COCO's 80 names will do, in whatever order it has them.
"""

_base_ = ["./coco.py"]

train_dataloader = dict(
    dataset=dict(
        type="dap.CheckedCocoDataset",
        data_root="",
        data_prefix=dict(img="data/coco/train2017/"),
    )
)
