import math
import sys

import pytest
import torch
from torch.autograd import gradcheck


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_sigmoid_loss_of_logit_zero(mmcv_ops):
    """p = 1/2: positives alpha / 4 log 2, negatives (1 - alpha) / 4 log 2."""
    loss = mmcv_ops.sigmoid_focal_loss(
        torch.zeros(3, 2), torch.tensor([1, 0, 2]), 2.0, 0.25, None, "none"
    )
    low, high = 0.25 / 4 * math.log(2), 0.75 / 4 * math.log(2)
    assert loss.tolist() == [pytest.approx(row) for row in ([high, low], [low, high], [high, high])]


def test_sigmoid_loss_of_large_logits_is_that_of_mmcv(ext):
    """From 17 on 1 - p is 0 in float32; mmcv takes the logarithm of the smallest number."""
    output = torch.zeros(1, 1)
    ext.sigmoid_focal_loss_forward(
        torch.full((1, 1), 20.0), torch.tensor([1]), torch.zeros(0), output, 2.0, 0.25
    )
    assert output.item() == pytest.approx(-0.75 * math.log(torch.finfo(torch.float32).tiny))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 2.5])
def test_sigmoid_loss_has_the_gradient_of_finite_differences(mmcv_ops, gamma):
    target, weight = torch.tensor([0, 3, 2, 1, 3]), torch.tensor([0.5, 1.0, 2.0]).double()
    gradcheck(
        lambda x: mmcv_ops.sigmoid_focal_loss(x, target, gamma, 0.25, weight, "none"),
        randn(5, 3).requires_grad_(),
    )


def test_class_weights_multiply_the_rows_of_their_class_and_spare_the_background(mmcv_ops):
    logits, target = randn(3, 2), torch.tensor([0, 1, 2])
    plain = mmcv_ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, "none")
    weight = torch.tensor([3.0, 5.0]).double()
    weighted = mmcv_ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, "none")
    torch.testing.assert_close(weighted, plain * torch.tensor([[3.0], [5.0], [1.0]]).double())


def test_negative_targets_count_as_background_in_the_sigmoid_loss(mmcv_ops):
    logits = randn(1, 2)
    losses = [
        mmcv_ops.sigmoid_focal_loss(logits, torch.tensor([t]), 2.0, 0.25, None, "none")
        for t in (-1, 2)
    ]
    assert torch.equal(*losses)


def test_a_target_that_is_no_class_is_named(ext):
    arguments = torch.zeros(1, 2), torch.tensor([3]), torch.zeros(0)
    with pytest.raises(ValueError, match="class 3, expected at most 2"):
        ext.sigmoid_focal_loss_forward(*arguments, torch.zeros(1, 2), 2.0, 0.25)
    with pytest.raises(ValueError, match="class 3, expected at most 1"):
        ext.softmax_focal_loss_forward(*arguments, torch.zeros(1), 2.0, 0.25)


def test_softmax_loss_of_equal_logits(mmcv_ops):
    """p = 1/4: 0.25 (3/4)^2 log 4; the ignored row has none."""
    loss = mmcv_ops.softmax_focal_loss(
        torch.zeros(2, 4), torch.tensor([2, -1]), 2.0, 0.25, None, "none"
    )
    assert loss.tolist() == pytest.approx([0.25 * 9 / 16 * math.log(4), 0.0])


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 2.5])
def test_softmax_loss_has_the_gradient_of_finite_differences(mmcv_ops, gamma):
    target, weight = torch.tensor([0, -1, 2, 1]), torch.tensor([0.5, 1.0, 2.0]).double()
    gradcheck(
        lambda x: mmcv_ops.softmax_focal_loss(x, target, gamma, 0.25, weight, "sum"),
        randn(4, 3).requires_grad_(),
    )


@pytest.mark.parametrize("name", ["sigmoid_focal_loss", "softmax_focal_loss"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_16_bit_logits_are_rounded_once(mmcv_ops, name, dtype):
    logits, target = randn(6, 4).to(dtype), torch.tensor([0, 1, 2, 3, 1, 0])
    low, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    losses = [getattr(mmcv_ops, name)(x, target, 2.0, 0.25, None, "mean") for x in (low, exact)]
    for loss in losses:
        loss.backward()
    assert low.grad.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(low.grad.double(), exact.grad, rtol=tolerance, atol=1e-4)


@pytest.mark.parametrize("name", ["sigmoid_focal_loss", "softmax_focal_loss"])
def test_chunks_do_not_change_losses(ext, mmcv_ops, name, monkeypatch):
    target = torch.tensor([0, 1, 2, 2, 1, 0, 0])

    def run():
        logits = randn(7, 3).requires_grad_()
        loss = getattr(mmcv_ops, name)(logits, target, 2.0, 0.25, None, "sum")
        loss.backward()
        return loss, logits.grad

    whole = run()
    module = sys.modules[ext.sigmoid_focal_loss_forward.__module__]
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 5)
    torch.testing.assert_close(run(), whole)


@pytest.mark.parametrize("name", ["sigmoid_focal_loss", "softmax_focal_loss"])
def test_no_row_has_no_loss(mmcv_ops, name):
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = getattr(mmcv_ops, name)(logits, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, "sum")
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.shape == (0, 3)
