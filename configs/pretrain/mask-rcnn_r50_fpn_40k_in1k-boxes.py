"""Step 3: Mask R-CNN R50-FPN on the pseudo boxes of ImageNet-1k: the mask head comes in Step 4."""

_base_ = ["./faster-rcnn_r50_fpn_40k_in1k-boxes.py"]

model = dict(type="MaskRCNN")
