"""The operators of mmcv that ``mmcv_ops.py`` compares."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from mmcv import ops
from mmcv_ops_inputs import (
    boxes,
    integer,
    make_attention,
    make_batched,
    make_carafe,
    make_deform,
    make_deform_roi,
    make_dyhead,
    make_focal,
    make_grid_nms,
    make_masked,
    make_modulated,
    make_nms,
    make_roi,
    make_soft,
    make_softmax_focal,
)
from mmcv_ops_references import (
    attention,
    carafe,
    masked_conv,
    roi_pool,
    shifted_roi_align,
    sigmoid_focal,
    softmax_focal,
)
from torch import Generator, Tensor


@dataclass
class Case:
    """One row of the table.

    Attributes:
        name: Name of the operator and its settings.
        make: Makes the arguments of ``apply`` with a generator.
        apply: Calls mmcv.ops and returns tensors.
        differentiable: Indices of the arguments to differentiate by.
        reference: Function with the same arguments, used if compiled mmcv does not support the
            device.
        reference_name: Name of ``reference`` for the table.
    """

    name: str
    make: Callable[[Generator], list[Any]]
    apply: Callable[..., Any]
    differentiable: list[int] = field(default_factory=list)
    reference: Callable[..., Any] | None = None
    reference_name: str = ""

    @staticmethod
    def lacks_device(error: Exception) -> bool:
        """Whether an error of compiled mmcv means that it does not support the device."""
        words = ("not found", "not implemented", "is_cuda", "not compiled")
        return isinstance(error, AssertionError) or any(w in str(error) for w in words)


def nms_pair(bounding: Tensor, scores: Tensor, threshold: float, offset: int) -> Any:
    """NMS without gradient."""
    return ops.nms(bounding, scores, threshold, offset=offset)


def cases_of_boxes() -> list[Case]:
    """List the cases of NMS and overlaps."""
    cases = [
        Case(f"nms, offset {o}{name}", make, partial(nms_pair, offset=o))
        for name, make in (("", make_nms), (", IoU on the threshold", make_grid_nms))
        for o in (0, 1)
    ]
    cases += [
        Case(
            f"soft_nms, {method}",
            make_soft,
            lambda b, s, t, m=method: ops.soft_nms(b, s, t, min_score=0.05, method=m),
        )
        for method in ("naive", "linear", "gaussian")
    ]
    cases.append(
        Case("nms_match", make_nms, lambda b, s, t: ops.nms_match(torch.cat([b, s[:, None]], 1), t))
    )
    cases.append(
        Case(
            "batched_nms",
            make_batched,
            lambda b, s, i, t: ops.batched_nms(b, s, i, {"type": "nms", "iou_threshold": t}),
        )
    )
    cases += [
        Case(
            f"bbox_overlaps, {mode}, offset {offset}",
            lambda g: [boxes(g, integer(g, 0, 9)), boxes(g, integer(g, 0, 9))],
            lambda a, b, m=mode, o=offset: ops.bbox_overlaps(a, b, m, offset=o),
        )
        for mode in ("iou", "iof")
        for offset in (0, 1)
    ]
    return cases


def cases_of_rois() -> list[Case]:
    """List the cases of RoIAlign, RoIPool and deformable pooling."""
    cases = [
        Case(
            f"RoIAlign, {mode}, aligned={aligned}",
            make_roi,
            lambda x, r, size, scale, ratio, m=mode, a=aligned: ops.roi_align(
                x, r, size, scale, ratio, m, a
            ),
            [0],
        )
        for mode in ("avg", "max")
        for aligned in (True, False)
    ]
    pool = Case(
        "RoIPool",
        make_roi,
        lambda x, r, size, scale, ratio: ops.roi_pool(x, r, size, scale),
        [0],
        roi_pool,
        "loops over cells",
    )
    deform = Case(
        "DeformRoIPool",
        make_deform_roi,
        lambda x, r, o, size, scale, ratio: ops.deform_roi_pool(x, r, o, size, scale, ratio),
        [0],
        shifted_roi_align,
        "RoIAlign of shifted RoIs",
    )
    return [*cases, pool, deform]


def cases_of_layers() -> list[Case]:
    """List the cases of convolutions, attention, upsampling and losses."""
    sigmoid = lambda x, t, gamma, alpha: ops.sigmoid_focal_loss(x, t, gamma, alpha, None, "none")  # noqa: E731
    softmax = lambda x, t, gamma, alpha: ops.softmax_focal_loss(x, t, gamma, alpha, None, "sum")  # noqa: E731
    attend = ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply
    return [
        Case("DeformConv2d", make_deform, ops.deform_conv2d, [0, 1, 2]),
        Case("ModulatedDeformConv2d", make_modulated, ops.modulated_deform_conv2d, [0, 1, 2, 3, 4]),
        Case("the same as in DyHead", make_dyhead, ops.modulated_deform_conv2d, [0, 1, 2, 3]),
        Case(
            "sigmoid_focal_loss",
            make_focal,
            sigmoid,
            [0],
            sigmoid_focal,
            "MMDetection's `py_sigmoid_focal_loss`",
        ),
        Case(
            "softmax_focal_loss",
            make_softmax_focal,
            softmax,
            [0],
            softmax_focal,
            "its formula by autograd",
        ),
        Case(
            "MultiScaleDeformableAttention",
            make_attention,
            attend,
            [0, 3, 4],
            attention,
            "mmcv's `multi_scale_deformable_attn_pytorch`",
        ),
        Case("CARAFE", make_carafe, ops.carafe, [0, 1], carafe, "its formula by unfolding"),
        Case(
            "MaskedConv2d",
            make_masked,
            ops.masked_conv.masked_conv2d,
            [],
            masked_conv,
            "convolution times mask",
        ),
    ]


CASES = [*cases_of_boxes(), *cases_of_rois(), *cases_of_layers()]
