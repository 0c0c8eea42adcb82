"""Step 2 without NMS: all boxes of all thresholds, for ``tools/select_boxes.py``.

All columns of the paper's Tables A1 and A2 are selected from this run.
"""

_base_ = ["./boxes_resnet50_in1k.py"]

pseudo_boxes = dict(nms_iou=None)
