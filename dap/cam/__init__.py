"""Step 2, the mathematics: features and linear weights → map → boxes."""

from .activation import class_activation_map
from .batches import BatchMaps, MappedViews, ViewMaps, batch_maps, linear_maps, multi_view_cam
from .boxes import NMS_IOU, box_candidates, boxes_from_cam, nms_larger_first
from .rules import (
    OTSU_MULTIPLES,
    RULES,
    THRESHOLDS,
    Rule,
    checked_thresholds,
    default_thresholds,
    multiplies_otsu,
    threshold_name,
)
from .views import (
    DEFAULT_VIEWS,
    PAD_MULTIPLE,
    MergedCam,
    ScaleMaps,
    Side,
    View,
    flips_by_side,
    make_views,
    map_over_image,
    merge_scales,
    padded_size,
    resized_size,
)

__all__ = [
    "DEFAULT_VIEWS",
    "NMS_IOU",
    "OTSU_MULTIPLES",
    "PAD_MULTIPLE",
    "RULES",
    "THRESHOLDS",
    "BatchMaps",
    "MappedViews",
    "MergedCam",
    "Rule",
    "ScaleMaps",
    "Side",
    "View",
    "ViewMaps",
    "batch_maps",
    "box_candidates",
    "boxes_from_cam",
    "checked_thresholds",
    "class_activation_map",
    "default_thresholds",
    "flips_by_side",
    "linear_maps",
    "make_views",
    "map_over_image",
    "merge_scales",
    "multi_view_cam",
    "multiplies_otsu",
    "nms_larger_first",
    "padded_size",
    "resized_size",
    "threshold_name",
]
