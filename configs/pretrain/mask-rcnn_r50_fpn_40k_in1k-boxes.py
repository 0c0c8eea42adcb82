"""Step 3: Mask R-CNN R50-FPN without mask head, on the pseudo boxes of ImageNet-1k."""

_base_ = ["./faster-rcnn_r50_fpn_40k_in1k-boxes.py"]

model = dict(type="MaskRCNN")
