"""Pseudo boxes of ImageNet-1k as data sets (paper, section 4.1), without a pipeline.

The 1000 categories are those of the store, in its order. 1000 images are held out of the training,
to validate the detector on their pseudo boxes.

The data sets are variables, which configs use as ``_base_.NAME``: a config that inherits a whole
recipe of MMDetection cannot inherit a second base that sets ``train_dataloader``.
"""

box_set = dict(
    type="dap.PseudoBoxDataset",
    part="train",
    held_out=1000,
    ann_file="work_dirs/boxes_resnet50_in1k/manifest.json",
    data_prefix=dict(img="data/imagenet/train/"),
    filter_cfg=dict(filter_empty_gt=True),
)
# dap.HeldOutValLoop sets files and held_out to those of the training set.
held_out_set = dict(type="dap.PseudoBoxDataset", part="val", test_mode=True)
short_sides = dict(
    type="RandomChoiceResize",
    scales=[(1333, 96), (1333, 160), (1333, 320), (1333, 640)],
    keep_ratio=True,
)
