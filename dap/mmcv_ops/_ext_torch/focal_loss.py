"""Focal losses and their gradients in closed form, with the conventions of mmcv's CUDA kernels.

Rows are processed in chunks, so that only a few megabytes are needed in addition to inputs
and outputs. 16-bit inputs are computed in float32 and rounded once.

A target outside [0, C) has no positive class: in the sigmoid loss all classes of its row
are negatives; the softmax loss is zero for negative targets. mmcv reads outside the array
of class weights for such rows; here their weight is 1.
"""

import torch
from torch import Tensor

from .common import at_least_float32, operator, slices

CHUNK_ELEMENTS = 2**21
SMALLEST = torch.finfo(torch.float32).tiny  # mmcv clamps probabilities to it before the logarithm


def _check_targets(target: Tensor, largest: int) -> None:
    """Raise ValueError if a target is larger than the largest valid one."""
    if target.numel() and (value := int(target.max())) > largest:
        raise ValueError(f"target contains the class {value}, expected at most {largest}")


def _row_weights(weight: Tensor, target: Tensor) -> Tensor | None:
    """Return the class weight of each row, shape (N, 1); None if there are no weights."""
    if not weight.numel():
        return None
    weight = at_least_float32(weight)
    valid = (target >= 0) & (target < len(weight))
    rows = weight[target.clamp(0, len(weight) - 1)]
    return torch.where(valid, rows, torch.ones_like(rows))[:, None]


def _negative_loss(p: Tensor, gamma: float, alpha: float) -> Tensor:
    log = (1 - p).clamp_(min=SMALLEST).log_()
    return log.mul_(p.pow_(gamma)).mul_(alpha - 1)


def _positive_loss(p: Tensor, gamma: float, alpha: float) -> Tensor:
    return -alpha * (1 - p) ** gamma * p.clamp(min=SMALLEST).log()


def _negative_gradient(p: Tensor, gamma: float, alpha: float) -> Tensor:
    rest = 1 - p
    term = rest.clamp(min=SMALLEST).log_().mul_(rest).mul_(gamma).sub_(p)
    return term.mul_(p.pow_(gamma)).mul_(alpha - 1)


def _positive_gradient(p: Tensor, gamma: float, alpha: float) -> Tensor:
    term = 1 - p - gamma * p * p.clamp(min=SMALLEST).log()
    return -alpha * (1 - p) ** gamma * term


def _sigmoid_rows(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    result: Tensor,
    gamma: float,
    alpha: float,
    gradient: bool,
) -> None:
    """Write losses or gradients (N, C) of negatives, then replace that of each row's positive."""
    classes = input.shape[1]
    _check_targets(target, largest=classes)
    negative = _negative_gradient if gradient else _negative_loss
    positive = _positive_gradient if gradient else _positive_loss
    if not classes:
        return
    for rows in slices(len(input), CHUNK_ELEMENTS // classes):
        logits = at_least_float32(input[rows])
        labels = target[rows]
        column = labels.clamp(0, classes - 1)[:, None]
        positives = positive(logits.gather(1, column).sigmoid(), gamma, alpha)
        values = negative(logits.sigmoid(), gamma, alpha)
        has_positive = ((labels >= 0) & (labels < classes))[:, None]
        values.scatter_(1, column, torch.where(has_positive, positives, values.gather(1, column)))
        if (row_weights := _row_weights(weight, labels)) is not None:
            values *= row_weights
        result[rows] = values.to(result.dtype)


@operator
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of each row and class, of p = sigmoid(input).

    It is -alpha (1 - p)^gamma log p for the target, else -(1 - alpha) p^gamma log(1 - p).

    Args:
        input: Logits, shape (N, C).
        target: Classes, int64, shape (N,), at most C; C is background.
        weight: Factor per class for its rows, shape (C,), or empty.
        output: Losses, shape (N, C).
        gamma: Focusing parameter.
        alpha: Weight of positives; 1 - alpha is that of negatives.

    Raises:
        ValueError: If a target is larger than C.
    """
    _sigmoid_rows(input, target, weight, output, gamma, alpha, gradient=False)


@operator
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the gradients of the logits into ``grad_input`` (N, C); see the forward."""
    _sigmoid_rows(input, target, weight, grad_input, gamma, alpha, gradient=True)


def _target_probabilities(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probability of each row's target (N,), and which rows have one (N,)."""
    _check_targets(target, largest=input.shape[1] - 1)
    p = at_least_float32(input.gather(1, target.clamp(min=0)[:, None])[:, 0])
    return p, target >= 0


@operator
def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write -alpha (1 - p)^gamma log p of the target's probability p, zero for negative targets.

    Args:
        input: Probabilities (after the softmax), shape (N, C).
        target: Classes, int64, shape (N,), below C; negative ones are ignored.
        weight: Factor per class, shape (C,), or empty.
        output: Losses, shape (N,).
        gamma: Focusing parameter.
        alpha: Factor of all losses.

    Raises:
        ValueError: If a target is C or larger.
    """
    p, counted = _target_probabilities(input, target)
    losses = torch.where(counted, _positive_loss(p, gamma, alpha), 0)
    if (row_weights := _row_weights(weight, target)) is not None:
        losses *= row_weights[:, 0]
    output.copy_(losses)


@operator
def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative of each row's loss with respect to its logits.

    Args:
        input: Probabilities (after the softmax), shape (N, C).
        target: Classes, int64, shape (N,), below C; negative ones are ignored.
        weight: Factor per class, shape (C,), or empty.
        buff: Output, the target's probability p times the derivative w.r.t. p, shape (N,).
        grad_input: Output, shape (N, C).
        gamma: Focusing parameter.
        alpha: Factor of all losses.
    """
    p, counted = _target_probabilities(input, target)
    factor = -((1 - p) ** gamma)
    if gamma:
        factor += gamma * (1 - p) ** (gamma - 1) * p * p.clamp(min=SMALLEST).log()
    factor = torch.where(counted, alpha * factor, 0)
    if (row_weights := _row_weights(weight, target)) is not None:
        factor *= row_weights[:, 0]
    buff.copy_(factor)
    column = target.clamp(min=0)[:, None]
    for rows in slices(len(input), CHUNK_ELEMENTS // max(1, input.shape[1])):
        probabilities = at_least_float32(input[rows])
        values = -factor[rows, None] * probabilities
        values.scatter_add_(1, column[rows], factor[rows, None])
        grad_input[rows] = values.to(grad_input.dtype)
