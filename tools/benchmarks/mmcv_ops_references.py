"""Reference implementations of operators for which a compiled mmcv has no CPU code."""

import torch
from mmcv import ops
from torch import Tensor
from torch.nn import functional


def softmax_focal(logits: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    """Softmax focal loss by autograd."""
    log = logits.log_softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0]
    return torch.where(target >= 0, -alpha * (1 - log.exp()) ** gamma * log, 0).sum()


def sigmoid_focal(logits: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    """Sigmoid focal loss by MMDetection's CPU implementation."""
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    one_hot = functional.one_hot(target, logits.shape[1] + 1)[:, :-1]
    return py_sigmoid_focal_loss(logits, one_hot, None, gamma, alpha, reduction="none")


def attention(
    value: Tensor, shapes: Tensor, start: Tensor, locations: Tensor, weights: Tensor, step: int
) -> Tensor:
    """Deformable attention by mmcv's CPU implementation."""
    reference = ops.multi_scale_deform_attn.multi_scale_deformable_attn_pytorch
    return reference(value, shapes.tolist(), locations, weights)


def carafe(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    """CARAFE by unfolding."""
    n, c, h, w = features.shape
    windows = functional.unfold(features, kernel, padding=kernel // 2)
    windows = windows.view(n, groups, c // groups, kernel**2, h, 1, w, 1)
    factors = masks.view(n, groups, 1, kernel**2, h, scale, w, scale)
    return (windows * factors).sum(3).reshape(n, c, h * scale, w * scale)


def masked_conv(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """Convolution multiplied by the mask."""
    return functional.conv2d(x, weight, bias, padding=padding) * mask


def roi_pool(x: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int) -> Tensor:
    """RoIPool as in mmcv's CUDA kernel, by loops."""
    height, width = x.shape[2:]
    output = x.new_zeros(len(rois), x.shape[1], *size)
    for number, roi in enumerate(rois):
        start, end = roi[1:3] * scale, (roi[3:] + 1) * scale
        cell = (end - start) / torch.tensor(size[::-1])
        if (end <= start).any():
            continue
        for i in range(size[0]):
            for j in range(size[1]):
                position = torch.tensor([j, i])
                x1, y1 = (position * cell + start).floor().long().clamp(min=0).tolist()
                x2, y2 = ((position + 1) * cell + start).ceil().long().tolist()
                part = x[int(roi[0]), :, y1 : min(max(y2, 0), height), x1 : min(max(x2, 0), width)]
                if part.numel():
                    output[number, :, i, j] = part.flatten(1).max(1).values
    return output + 0 * x.sum()  # to have a gradient if there is no RoI


def shifted_roi_align(
    x: Tensor, rois: Tensor, offset: Tensor, size: tuple[int, int], scale: float, ratio: int
) -> Tensor:
    """RoIAlign of shifted RoIs in float64: all bins of a RoI have the same offset."""
    from torchvision.ops import roi_align

    moved = rois.double()
    shift = 0.1 * (moved[:, 3:] - moved[:, 1:3]) * offset[:, :, 0, 0]
    moved = moved + torch.cat([torch.zeros_like(shift[:, :1]), shift, shift], 1)
    # in float64, so that rounding does not change the number of samples per RoI
    ratio = ratio or 0
    return roi_align(x.double(), moved, size, scale, ratio, aligned=True).to(x.dtype)
