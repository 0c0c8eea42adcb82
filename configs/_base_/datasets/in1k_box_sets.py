"""Pseudo boxes of ImageNet-1k as data sets (paper, section 4.1), without a pipeline.

The 1000 categories are those of the store, in its order. 1000 images are held out: whether the
detector finds their boxes shows whether the training works.

They are variables, which a config takes by ``_base_.``, because one that inherits a whole recipe of
MMDetection cannot inherit a second base that sets ``train_dataloader``.
"""

box_set = dict(
    type="dap.PseudoBoxDataset",
    part="train",
    held_out=1000,
    ann_file="work_dirs/boxes_resnet50_in1k/manifest.json",
    data_prefix=dict(img="data/imagenet/train/"),
    filter_cfg=dict(filter_empty_gt=True),
)
# Files and held_out are those of the training set, see dap.HeldOutValLoop.
held_out_set = dict(type="dap.PseudoBoxDataset", part="val", test_mode=True)
short_sides = dict(
    type="RandomChoiceResize",
    scales=[(1333, 96), (1333, 160), (1333, 320), (1333, 640)],
    keep_ratio=True,
)
