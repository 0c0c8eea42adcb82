"""Random inputs of the operators that ``mmcv_ops.py`` compares."""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional


def integer(g: Generator, low: int, high: int) -> int:
    """Draw an integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=g))


def boxes(g: Generator, count: int, extent: float = 50) -> Tensor:
    """Draw boxes xyxy with sides up to half the extent."""
    corner = torch.rand(count, 2, generator=g) * extent
    return torch.cat([corner, corner + torch.rand(count, 2, generator=g) * extent / 2], 1)


def rois(g: Generator, images: int, extent: float) -> Tensor:
    """Draw up to 12 RoIs, some of which leave the image."""
    count = integer(g, 0, 12)
    index = torch.randint(0, images, (count, 1), generator=g).float()
    return torch.cat([index, boxes(g, count, extent) - extent / 10], 1)


def make_nms(g: Generator) -> list[Any]:
    """Make boxes, distinct scores and a threshold."""
    count = integer(g, 0, 60)
    # scores are distinct, because compiled mmcv sorts equal ones in no fixed order
    scores = torch.randperm(count, generator=g) / max(1, count)
    return [boxes(g, count), scores, 0.1 * integer(g, 1, 9)]


def make_grid_nms(g: Generator) -> list[Any]:
    """Make boxes with integer coordinates, whose IoU often equals the threshold."""
    count = integer(g, 1, 30)
    corner = torch.randint(0, 6, (count, 2), generator=g).float()
    side = torch.randint(1, 6, (count, 2), generator=g).float()
    scores = torch.randperm(count, generator=g) / count
    return [torch.cat([corner, corner + side], 1), scores, 0.1 * integer(g, 1, 9)]


def make_soft(g: Generator) -> list[Any]:
    """Make boxes, scores and a threshold."""
    count = integer(g, 1, 40)
    return [boxes(g, count), torch.rand(count, generator=g), 0.3 + 0.1 * integer(g, 0, 4)]


def make_batched(g: Generator) -> list[Any]:
    """Make boxes, scores, classes and a threshold."""
    bounding, scores, threshold = make_nms(g)
    count = len(scores)
    return [
        torch.cat([bounding, boxes(g, 1)]),
        torch.cat([scores, torch.ones(1)]),
        torch.randint(0, 3, (count + 1,), generator=g),
        threshold,
    ]


def make_roi(g: Generator) -> list[Any]:
    """Make features, RoIs, bins, scale and sampling ratio."""
    batch, channels = integer(g, 1, 2), integer(g, 1, 4)
    height, width = integer(g, 3, 12), integer(g, 3, 12)
    scale = 2.0 ** -integer(g, 0, 3)
    features = torch.randn(batch, channels, height, width, generator=g)
    size = (integer(g, 1, 4), integer(g, 1, 4))
    return [features, rois(g, batch, width / scale), size, scale, integer(g, 0, 2)]


def make_deform(g: Generator) -> list[Any]:
    """Make the arguments of a deformable convolution."""
    groups, deform_groups = integer(g, 1, 2), integer(g, 1, 2)
    batch, kernel, stride, dilation = integer(g, 1, 2), integer(g, 1, 3), integer(g, 1, 2), 1
    padding = integer(g, 0, 1)
    x = torch.randn(batch, 4, integer(g, 4, 8), integer(g, 4, 8), generator=g)
    weight = torch.randn(6, 4 // groups, kernel, kernel, generator=g)
    height, width = functional.conv2d(x[:, :1], weight[:1, :1], None, stride, padding).shape[2:]
    offset = torch.randn(batch, deform_groups * 2 * kernel**2, height, width, generator=g) * 2
    return [x, offset, weight, stride, padding, dilation, groups, deform_groups]


def make_modulated(g: Generator) -> list[Any]:
    """Make the arguments of a modulated deformable convolution."""
    x, offset, weight, *geometry = make_deform(g)
    mask = torch.rand(len(x), offset.shape[1] // 2, *offset.shape[2:], generator=g)
    return [x, offset, mask, weight, torch.randn(6, generator=g), *geometry]


def make_dyhead(g: Generator) -> list[Any]:
    """Like make_modulated with stride 2, but offsets and masks have the size of the input."""
    x = torch.randn(2, 4, integer(g, 4, 8), integer(g, 4, 8), generator=g)
    offset = torch.randn(2, 18, *x.shape[2:], generator=g)
    mask = torch.rand(2, 9, *x.shape[2:], generator=g)
    return [x, offset, mask, torch.randn(6, 4, 3, 3, generator=g), None, 2, 1]


def make_focal(g: Generator) -> list[Any]:
    """Make logits, targets with background, gamma and alpha."""
    count, classes = integer(g, 1, 20), integer(g, 1, 6)
    target = torch.randint(0, classes + 1, (count,), generator=g)
    return [torch.randn(count, classes, generator=g) * 3, target, 0.5 * integer(g, 2, 6), 0.25]


def make_softmax_focal(g: Generator) -> list[Any]:
    """Make logits, targets with ignored ones, gamma and alpha."""
    logits, target, gamma, alpha = make_focal(g)
    ignored = torch.rand(len(target), generator=g) < 0.1
    target = target.clamp(max=logits.shape[1] - 1).masked_fill(ignored, -1)
    return [logits, target, gamma, alpha]


def make_attention(g: Generator) -> list[Any]:
    """Make the arguments of deformable attention; some points are outside the map."""
    batch, heads, channels, queries = integer(g, 1, 2), integer(g, 1, 3), integer(g, 1, 4), 7
    levels, points = integer(g, 1, 3), integer(g, 1, 4)
    shapes = torch.randint(1, 6, (levels, 2), generator=g)
    sizes = shapes.prod(1)
    value = torch.randn(batch, int(sizes.sum()), heads, channels, generator=g)
    locations = torch.rand(batch, queries, heads, levels, points, 2, generator=g) * 1.4 - 0.2
    weights = torch.rand(batch, queries, heads, levels, points, generator=g)
    return [value, shapes, sizes.cumsum(0) - sizes, locations, weights, 64]


def make_carafe(g: Generator) -> list[Any]:
    """Make features, masks, kernel, groups and scale."""
    groups, kernel, scale = integer(g, 1, 2), 1 + 2 * integer(g, 0, 2), integer(g, 1, 3)
    features = torch.randn(2, 4, integer(g, 2, 5), integer(g, 2, 5), generator=g)
    height, width = (scale * size for size in features.shape[2:])
    masks = torch.rand(2, groups * kernel**2, height, width, generator=g)
    return [features, masks, kernel, groups, scale]


def make_masked(g: Generator) -> list[Any]:
    """Make features, mask, weight, bias and padding."""
    padding = integer(g, 1, 2)
    kernel = 2 * padding + 1
    features = torch.randn(1, 3, integer(g, 1, 8), integer(g, 1, 8), generator=g)
    mask = torch.rand(1, *features.shape[2:], generator=g) < 0.5
    weight = torch.randn(4, 3, kernel, kernel, generator=g)
    return [features, mask, weight, torch.randn(4, generator=g), padding]


def make_deform_roi(g: Generator) -> list[Any]:
    """Like make_roi, with one offset per RoI."""
    features, boxes_, size, scale, ratio = make_roi(g)
    offset = torch.randn(len(boxes_), 2, 1, 1, generator=g)
    return [features, boxes_, offset.expand(-1, -1, *size).clone(), size, scale, ratio]
