"""Errors for the operators of mmcv that need a compiled mmcv."""

from collections.abc import Callable
from typing import Any, NoReturn

CURE = (
    "install a compiled mmcv: conda-forge's package `mmcv`, or, with a compiler and "
    "torch installed, `MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0`"
)

# Prefix of operators -> the function or layer of mmcv.ops that calls them, and its users.
CALLERS = {
    "active_rotated_filter": ("active_rotated_filter", "MMRotate's S2ANet and ReDet"),
    "assign_score_withk": ("assign_score_withk", "MMDetection3D's PAConv"),
    "ball_query": ("ball_query", "MMDetection3D's PointNet++"),
    "bezier_align": ("BezierAlign", "MMOCR's ABCNet"),
    "bias_act": ("bias_act", "MMagic's StyleGAN3"),
    "border_align": ("BorderAlign", "BorderDet; no detector of MMDetection 3.3"),
    "box_iou_quadri": ("box_iou_quadri", "MMRotate"),
    "box_iou_rotated": ("box_iou_rotated", "MMRotate, and MMDetection for rotated boxes"),
    "chamfer_distance": ("chamfer_distance", "MMDetection3D"),
    "contour_expand": ("contour_expand", "MMOCR's PSENet"),
    "convex_": ("convex_iou and convex_giou", "MMRotate's RepPoints"),
    "correlation": ("Correlation", "MMFlow"),
    "diff_iou_rotated": ("diff_iou_rotated_2d and diff_iou_rotated_3d", "MMRotate, MMDetection3D"),
    "dynamic_point_to_voxel": ("DynamicScatter", "MMDetection3D"),
    "dynamic_voxelize": ("Voxelization", "MMDetection3D"),
    "filtered_lrelu": ("filtered_lrelu", "MMagic's StyleGAN3"),
    "furthest_point_sampling": ("furthest_point_sample", "MMDetection3D"),
    "fused_bias_leakyrelu": ("FusedBiasLeakyReLU", "MMagic's StyleGAN2"),
    "fused_indice": ("SparseConv2d and related layers", "MMDetection3D"),
    "gather_points": ("gather_points", "MMDetection3D"),
    "get_indice_pairs": ("SparseConv2d and related layers", "MMDetection3D"),
    "group_points": ("QueryAndGroup", "MMDetection3D"),
    "hard_voxelize": ("Voxelization", "MMDetection3D"),
    "indice_": ("SparseConv2d and related layers", "MMDetection3D"),
    "iou3d": ("boxes_iou3d and nms3d", "MMDetection3D"),
    "knn": ("knn", "MMDetection3D"),
    "min_area_polygons": ("min_area_polygons", "MMRotate"),
    "nms_quadri": ("nms_quadri", "MMRotate"),
    "nms_rotated": ("nms_rotated", "MMRotate, and MMDetection for rotated boxes"),
    "pixel_group": ("pixel_group", "MMOCR's PANet"),
    "points_in_boxes": ("points_in_boxes_part and related functions", "MMDetection3D"),
    "points_in_polygons": ("points_in_polygons", "MMRotate"),
    "prroi_pool": ("PrRoIPool", "no detector of MMDetection 3.3"),
    "psamask": ("PSAMask", "MMSegmentation's PSANet"),
    "riroi_align_rotated": ("RiRoIAlignRotated", "MMRotate's ReDet"),
    "roi_align_rotated": ("RoIAlignRotated", "MMRotate"),
    "roiaware_pool3d": ("RoIAwarePool3d", "MMDetection3D"),
    "roipoint_pool3d": ("RoIPointPool3d", "MMDetection3D"),
    "rotated_feature_align": ("rotated_feature_align", "MMRotate's R3Det"),
    "stack_ball_query": ("ball_query", "MMDetection3D"),
    "stack_group_points": ("QueryAndGroup", "MMDetection3D"),
    "three_interpolate": ("three_interpolate", "MMDetection3D"),
    "three_nn": ("three_nn", "MMDetection3D"),
    "tin_shift": ("TINShift", "MMAction2's TIN"),
    "upfirdn2d": ("upfirdn2d", "MMagic's StyleGAN2"),
}


def missing_operator(name: str) -> Callable[..., NoReturn]:
    """Return a function in place of the operator ``name``, which raises when it is called.

    ``mmcv.ops`` looks up all operators on import, so the lookup itself must succeed.

    Args:
        name: Attribute that the module ``mmcv._ext`` does not have.

    Raises:
        AttributeError: If ``name`` starts with an underscore, and thus is no operator.
    """
    if name.startswith("_"):
        raise AttributeError(f"module 'mmcv._ext' has no attribute {name!r}")
    matches = [caller for start, caller in CALLERS.items() if name.startswith(start)]
    caller = "".join(f" (mmcv.ops.{ops}; used by {users})" for ops, users in matches[:1])

    def operator(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operator {name}{caller} is not available without a compiler; {CURE}"
        )

    operator.__name__ = name
    return operator
