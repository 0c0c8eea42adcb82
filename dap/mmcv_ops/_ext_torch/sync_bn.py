"""The part of one process in synchronised batch normalisation (``MMSyncBN``)."""

from torch import Tensor

from .common import at_least_float32, operator


@operator
def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Write the mean of each channel of ``input`` (N, C, L) into ``mean`` (C,), float32."""
    mean.copy_(at_least_float32(input).mean(dim=(0, 2)))


@operator
def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Write the mean square distance of ``input`` (N, C, L) from ``mean`` into ``var`` (C,)."""
    distance = at_least_float32(input) - mean[:, None]
    var.copy_(distance.square_().mean(dim=(0, 2)))


@operator
def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    eps: float,
    momentum: Tensor,
    group_size: int,
) -> None:
    """Normalise, and update the running statistics.

    Args:
        input: Features, shape (N, C, L).
        mean: Mean of each channel over all processes, shape (C,).
        var: Likewise the biased variance.
        weight: Scale of each channel.
        bias: Offset of each channel.
        running_mean: Changed to ``(1 - momentum) * running_mean + momentum * mean``.
        running_var: Likewise, by the unbiased variance of all processes.
        norm: Written: normalised features before scale and offset, float32.
        std: Written: square root of the sum of variance and ``eps``.
        output: Written: the result, shape (N, C, L).
        eps: Added to the variance.
        momentum: Weight of the present statistics.
        group_size: Number of processes.
    """
    std.copy_((var + eps).sqrt())
    norm.copy_((at_least_float32(input) - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.shape[0] * input.shape[2] * group_size
    unbiased = var * (count / max(1, count - 1))
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(unbiased, momentum)


@operator
def sync_bn_backward_param(
    grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> None:
    """Write the gradients of scale and offset in one process, each of shape (C,)."""
    grad_output = at_least_float32(grad_output)
    grad_weight.copy_((grad_output * norm).sum(dim=(0, 2)))
    grad_bias.copy_(grad_output.sum(dim=(0, 2)))


@operator
def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> None:
    """Write the gradient of the features into ``grad_input``, shape (N, C, L).

    ``grad_weight`` and ``grad_bias`` are the means over all processes.
    """
    count = grad_output.shape[0] * grad_output.shape[2]
    centred = (
        at_least_float32(grad_output) - (norm * grad_weight[:, None] + grad_bias[:, None]) / count
    )
    grad_input.copy_(centred * (weight / std)[:, None])
