"""Images drawn from COCO train2017 / val2017 (paper, section 4.1, Figure 3).

``python tools/few_shot.py --coco data/coco/annotations/instances_train2017.json --shots 5 10``
writes the annotation files. A config that inherits this one sets ``ann_file`` to one of them. Other
COCO files must have COCO's 80 category names, in any order.
"""

_base_ = ["./coco.py"]

train_dataloader = dict(
    dataset=dict(
        type="dap.CheckedCocoDataset",
        data_root="",
        data_prefix=dict(img="data/coco/train2017/"),
    )
)
