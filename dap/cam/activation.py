"""Class activation maps: features and the weights of a linear classifier → one map per image."""

from __future__ import annotations

import torch
from torch import Tensor


def class_activation_map(
    features: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Apply the linear layer of each image's labelled class as a 1x1 convolution.

    ``map[n] = sum_c weight[labels[n], c] * features[n, c] (+ bias[labels[n]])``: the layer that
    follows global average pooling, moved before it (Zhou et al. 2016; DAP, section 3.1, Step 2),
    so that the mean of a map is the logit of its class. Only the map of the labelled class is
    computed, not all K maps.

    Args:
        features: Last feature map of the backbone, shape (N, C, H, W).
        weight: Weight of the linear layer, shape (K, C).
        labels: Class of each image, integers in [0, K), shape (N,). Repeat the features of an
            image with several classes, once per class (``expand`` does it without a copy).
        bias: Bias of the linear layer, shape (K,). It adds a constant to a map, which the
            normalisation of eq. 1 removes again.

    Returns:
        Maps without activation function, any range, shape (N, H, W).

    Raises:
        ValueError: If the shapes do not match or a label is out of range.
    """
    if features.ndim != 4:
        raise ValueError(f"features: expected shape (N, C, H, W), found {tuple(features.shape)}")
    if weight.ndim != 2 or weight.shape[1] != features.shape[1]:
        raise ValueError(
            f"weight: expected shape (K, {features.shape[1]}) to fit features of shape "
            f"{tuple(features.shape)}, found {tuple(weight.shape)}"
        )
    labels = torch.as_tensor(labels)
    if (
        labels.shape != features.shape[:1]
        or labels.dtype.is_floating_point
        or (labels.dtype == torch.bool)
    ):
        raise ValueError(
            f"labels: expected integers of shape ({features.shape[0]},), found "
            f"{labels.dtype} of shape {tuple(labels.shape)}"
        )
    check_labels(labels, len(weight))
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias: expected shape ({len(weight)},), found {tuple(bias.shape)}")
    if not features.is_floating_point():
        features = features.to(weight.dtype)
    # Labels are checked before they are copied, so that checking CPU labels never waits for a GPU.
    # They are converted to int64, because torch interprets uint8 indices as a mask.
    labels = labels.to(features.device, torch.long, non_blocking=True)
    maps = torch.einsum("nchw,nc->nhw", features, weight[labels].to(features.dtype))
    if bias is not None:
        maps = maps + bias[labels].to(maps.dtype)[:, None, None]
    return maps


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Check that labels are classes of a classifier.

    Args:
        labels: Integers, any shape; may be empty.
        num_classes: Number of classes K.

    Raises:
        ValueError: If a label is not in [0, K).
    """
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f"labels: expected classes in [0, {num_classes}) as the classifier has {num_classes}, "
            f"found {int(labels.min())} to {int(labels.max())}"
        )
