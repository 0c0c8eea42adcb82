"""MMSyncBN of one process against torch's batch norm."""

import pytest
import torch
from torch.nn import functional


def tensors():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 4, 5, 2, generator=generator) * 3 + 1
    weight, bias = torch.rand(2, 4, generator=generator) + 0.5
    return [tensor.requires_grad_() for tensor in (features, weight, bias)]


@pytest.mark.parametrize("mode", ["default", "N"])
def test_equals_batch_norm_with_its_gradients_and_statistics(mmcv_ops, mode):
    from mmcv.ops.sync_bn import SyncBatchNormFunction

    results = []
    for ours in (True, False):
        features, weight, bias = tensors()
        mean, var = torch.full((4,), 0.5), torch.full((4,), 2.0)
        if ours:
            output = SyncBatchNormFunction.apply(
                features, mean, var, weight, bias, 0.1, 1e-5, 0, 1, mode
            )
        else:
            output = functional.batch_norm(features, mean, var, weight, bias, True, 0.1, 1e-5)
        gradient = torch.arange(output.numel()).view_as(output) / 50.0
        output.backward(gradient)
        results.append([output, features.grad, weight.grad, bias.grad, mean, var])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_two_processes_are_one_with_all_images(ext):
    """What mmcv sums over processes, done by hand for two of equal size."""
    features, weight, bias = (tensor.detach() for tensor in tensors())
    features = torch.cat([features, features.flip(0) * 2]).flatten(2)
    halves = features.chunk(2)
    means = [torch.zeros(4) for _ in halves]
    for half, mean in zip(halves, means, strict=True):
        ext.sync_bn_forward_mean(half, mean)
    mean = sum(means) / 2
    variances = [torch.zeros(4) for _ in halves]
    for half, var in zip(halves, variances, strict=True):
        ext.sync_bn_forward_var(half, mean, var)
    var = sum(variances) / 2
    running_mean, running_var = torch.zeros(4), torch.ones(4)
    norm, std, output = torch.zeros_like(halves[1]), torch.zeros(4), torch.zeros_like(halves[1])
    ext.sync_bn_forward_output(
        halves[1], mean, var, weight, bias, running_mean, running_var, norm, std, output,
        eps=1e-5, momentum=torch.tensor([0.1]), group_size=2,
    )  # fmt: skip
    all_mean, all_var = torch.zeros(4), torch.ones(4)
    whole = functional.batch_norm(features, all_mean, all_var, weight, bias, True, 0.1, 1e-5)
    torch.testing.assert_close(output, whole.chunk(2)[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(running_mean, all_mean)
    torch.testing.assert_close(running_var, all_var)
