"""Step 2, the mathematics: features and linear weights → map → boxes."""

from .activation import class_activation_map
from .boxes import (
    NMS_IOU,
    RULES,
    THRESHOLDS,
    Rule,
    box_candidates,
    boxes_from_cam,
    nms_larger_first,
)
from .views import DEFAULT_VIEWS, MergedCam, View, make_views, multi_view_cam, resized_size

__all__ = [
    "DEFAULT_VIEWS",
    "NMS_IOU",
    "RULES",
    "THRESHOLDS",
    "MergedCam",
    "Rule",
    "View",
    "box_candidates",
    "boxes_from_cam",
    "class_activation_map",
    "make_views",
    "multi_view_cam",
    "nms_larger_first",
    "resized_size",
]
