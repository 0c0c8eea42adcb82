"""Step 3: the whole detector on the pseudo boxes."""

_base_ = ["./detector.py"]

iterations = 100
train_dataloader = dict(
    dataset=dict(
        type="dap.PseudoBoxDataset",
        ann_file="boxes/manifest.json",
        data_prefix=dict(img="my_images/"),
    )
)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations)
param_scheduler = dict(type="CosineAnnealingLR", T_max=iterations, by_epoch=False)
default_hooks = dict(checkpoint=dict(interval=iterations, by_epoch=False))
work_dir = "work_dirs/pretrain"
