"""Step 3: RetinaNet R50-FPN on the pseudo boxes of ImageNet-1k (paper, Tables 6 and 7)."""

_base_ = [
    "../_base_/models/retinanet_r50_fpn_frozen-bn.py",
    "../_base_/datasets/in1k_boxes.py",
    "../_base_/schedules/pretrain_in1k.py",
]
model = dict(
    backbone=dict(init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50")),
    bbox_head=dict(num_classes=1000),
)
train_cfg = dict(max_iters=80072)  # two passes at batch 32 (paper, section 4.3)
optim_wrapper = dict(optimizer=dict(lr=0.005))
