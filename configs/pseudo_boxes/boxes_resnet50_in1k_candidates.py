"""Step 2 without NMS: every box of every threshold, for ``tools/select_boxes.py``.

One run of maps gives all columns of the paper's Tables A1 and A2.
"""

_base_ = ["./boxes_resnet50_in1k.py"]

pseudo_boxes = dict(nms_iou=None)
