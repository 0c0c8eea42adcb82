import math
import sys

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_deform_conv_without_offsets_is_a_convolution(mmcv_ops):
    x, weight = randn(2, 4, 7, 8, dtype=torch.float32), randn(6, 2, 3, 3, dtype=torch.float32)
    offset = torch.zeros(2, 18, 4, 4)
    result = mmcv_ops.deform_conv2d(x, offset, weight, 2, 1, 1, 2, 1)
    torch.testing.assert_close(result, functional.conv2d(x, weight, None, 2, 1, 1, 2))


def test_deform_conv_offsets_are_y_then_x(mmcv_ops):
    x = torch.arange(20.0).view(1, 1, 4, 5)
    offset = torch.zeros(1, 2, 4, 5)
    offset[:, 0] = 1
    result = mmcv_ops.deform_conv2d(x, offset, torch.ones(1, 1, 1, 1))
    assert torch.equal(result[0, 0, :3], x[0, 0, 1:])
    assert not result[0, 0, 3].any()


def test_deform_conv_counts_samples_that_are_not_numbers_as_zero(mmcv_ops):
    """As mmcv does; torchvision's CPU code reads outside the map there."""
    x = torch.ones(1, 1, 4, 5, requires_grad=True)
    offset = torch.zeros(1, 2, 4, 5)
    offset[0, 0, 1, 2], offset[0, 1, 2, 3], offset[0, 0, 0, 0] = math.nan, math.inf, -math.inf
    result = mmcv_ops.deform_conv2d(x, offset, torch.ones(1, 1, 1, 1))
    result.sum().backward()
    assert result.sum() == 17
    assert x.grad.sum() == 17


@pytest.mark.parametrize(("groups", "deform_groups"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_deform_conv_has_the_gradients_of_finite_differences(mmcv_ops, groups, deform_groups):
    x, weight = randn(2, 4, 4, 5), randn(4, 4 // groups, 2, 2, seed=1)
    offset = randn(2, 8 * deform_groups, 3, 4, seed=2)
    inputs = [t.requires_grad_() for t in (x, offset, weight)]
    gradcheck(
        lambda *t: mmcv_ops.deform_conv2d(*t, 1, 0, 1, groups, deform_groups), inputs, atol=1e-4
    )


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
def test_deform_conv_gives_each_gradient_alone(mmcv_ops, wanted):
    """mmcv asks for gradients in two calls, of which it leaves one out if it can."""
    tensors = [randn(1, 2, 4, 4), randn(1, 8, 3, 3, seed=1), randn(3, 2, 2, 2, seed=2)]
    everything = [t.clone().requires_grad_() for t in tensors]
    mmcv_ops.deform_conv2d(*everything).square().sum().backward()
    some = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(tensors)]
    mmcv_ops.deform_conv2d(*some).square().sum().backward()
    for index in wanted:
        assert torch.equal(some[index].grad, everything[index].grad)


def test_deform_conv_called_backward_twice_gives_both_gradients(mmcv_ops):
    x, offset = randn(1, 2, 4, 4), randn(1, 8, 3, 3, seed=1).requires_grad_()
    weight = randn(3, 2, 2, 2, seed=2).requires_grad_()
    output = mmcv_ops.deform_conv2d(x, offset, weight)
    once = torch.autograd.grad(output[:, 0].sum(), weight, retain_graph=True)[0]
    assert once[0].any()
    assert not once[1:].any()
    again = torch.autograd.grad(output[:, 1].sum(), weight)[0]
    assert again[1].any()
    assert not again[0].any()


def test_modulated_deform_conv_multiplies_by_mask_and_adds_bias(mmcv_ops):
    x, weight, bias = randn(1, 2, 4, 4), randn(3, 2, 3, 3, seed=1), randn(3, seed=2)
    offset, mask = torch.zeros(1, 18, 4, 4).double(), torch.full((1, 9, 4, 4), 0.5).double()
    result = mmcv_ops.modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 1)
    expected = functional.conv2d(x, weight, None, 1, 1) * 0.5 + bias.view(1, 3, 1, 1)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("with_bias", [True, False])
def test_modulated_deform_conv_has_the_gradients_of_finite_differences(mmcv_ops, with_bias):
    x, weight, bias = randn(1, 4, 4, 5), randn(4, 2, 2, 2, seed=1), randn(4, seed=4)
    offset, mask = randn(1, 16, 3, 4, seed=2), randn(1, 8, 3, 4, seed=3)
    inputs = [t.requires_grad_() for t in (x, offset, mask, weight, bias)]
    if not with_bias:
        inputs[4] = None
    gradcheck(lambda *t: mmcv_ops.modulated_deform_conv2d(*t, 1, 0, 1, 2, 2), inputs, atol=1e-4)


def test_modulated_deform_conv_reads_larger_offsets_and_masks_as_mmcv_does(mmcv_ops):
    """DyHead: stride 2, fields of the input's size. The first numbers of each image count."""
    x, weight = randn(2, 2, 4, 6), randn(3, 2, 3, 3, seed=1)
    offset, mask = randn(2, 18, 4, 6, seed=2).requires_grad_(), randn(2, 9, 4, 6, seed=3)
    result = mmcv_ops.modulated_deform_conv2d(x, offset, mask, weight, None, 2, 1)
    small = [t.flatten(1)[:, : c * 6].reshape(2, c, 2, 3) for t, c in ((offset, 18), (mask, 9))]
    expected = mmcv_ops.modulated_deform_conv2d(x, *small, weight, None, 2, 1)
    assert torch.equal(result, expected)
    gradients = [torch.autograd.grad(r.square().sum(), offset)[0] for r in (result, expected)]
    assert torch.equal(*gradients)


def test_modulated_deform_conv_names_offsets_that_are_too_small(mmcv_ops):
    x, weight, mask = randn(1, 1, 4, 4), randn(1, 1, 1, 1), randn(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"offset has height and width \(3, 4\), expected"):
        mmcv_ops.modulated_deform_conv2d(x, randn(1, 2, 3, 4), mask, weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_deform_convs_take_16_bit_floats(mmcv_ops, dtype):
    x, weight = torch.ones(1, 1, 4, 4, dtype=dtype), torch.ones(1, 1, 2, 2, dtype=dtype)
    offset, mask = torch.zeros(1, 8, 3, 3, dtype=dtype), torch.ones(1, 4, 3, 3, dtype=dtype)
    weight.requires_grad_()
    plain = mmcv_ops.deform_conv2d(x, offset, weight)
    modulated = mmcv_ops.modulated_deform_conv2d(x, offset, mask, weight)
    (plain + modulated).sum().backward()
    assert plain.dtype == modulated.dtype == weight.grad.dtype == dtype
    assert torch.equal(plain, torch.full_like(plain, 4))
    assert torch.equal(weight.grad, torch.full_like(weight, 18))


def attention_inputs(seed=0):
    shapes = torch.tensor([[3, 4], [2, 2]])
    value = randn(2, 16, 2, 3, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    locations = torch.rand(2, 5, 2, 2, 3, 2, generator=generator).double() * 1.2 - 0.1
    weights = torch.rand(2, 5, 2, 2, 3, generator=generator).double()
    return value, shapes, torch.tensor([0, 12]), locations, weights


def test_attention_at_the_middle_of_a_cell_takes_its_value(ext):
    """One level of 2 x 4 cells, one point at x 2.5 / 4, y 1.5 / 2: cell 6, weight 0.5."""
    value = torch.arange(8.0).view(1, 8, 1, 1)
    location = torch.tensor([2.5 / 4, 1.5 / 2]).view(1, 1, 1, 1, 1, 2)
    result = ext.ms_deform_attn_forward(
        value, torch.tensor([[2, 4]]), torch.tensor([0]), location, torch.full((1,) * 5, 0.5), 64
    )
    assert result.shape == (1, 1, 1)
    assert result.item() == pytest.approx(3.0)


def test_attention_has_the_gradients_of_finite_differences(mmcv_ops):
    value, shapes, start, locations, weights = attention_inputs()
    function = mmcv_ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply
    inputs = [t.requires_grad_() for t in (value, locations, weights)]
    gradcheck(lambda v, l, w: function(v, shapes, start, l, w, 64), inputs)  # noqa: E741


@pytest.mark.parametrize("samples", [1, 4])
def test_attention_equals_the_reference_of_mmcv(ext, mmcv_ops, monkeypatch, samples):
    """With 3 points per query the queries are cut into parts only if one sample is allowed."""
    ours = sys.modules[ext.ms_deform_attn_forward.__module__]
    monkeypatch.setattr(ours, "SAMPLES_PER_OUTPUT", samples)
    module = mmcv_ops.multi_scale_deform_attn
    value, shapes, start, locations, weights = attention_inputs(seed=3)
    inputs = [t.requires_grad_() for t in (value, locations, weights)]
    result = module.MultiScaleDeformableAttnFunction.apply(
        value, shapes, start, locations, weights, 64
    )
    expected = module.multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    torch.testing.assert_close(result, expected)
    grad = randn(*result.shape, seed=4)
    for ours_grad, its_grad in zip(
        *(torch.autograd.grad(r, inputs, grad) for r in (result, expected)), strict=True
    ):
        torch.testing.assert_close(ours_grad, its_grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_takes_16_bit_floats(mmcv_ops, dtype):
    value, shapes, start, locations, weights = attention_inputs()
    function = mmcv_ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply
    low = [t.to(dtype).requires_grad_() for t in (value, locations, weights)]
    result = function(low[0], shapes, start, low[1], low[2], 64)
    result.sum().backward()
    exact = function(low[0].double(), shapes, start, low[1].double(), low[2].double(), 64)
    assert result.dtype == low[1].grad.dtype == dtype
    torch.testing.assert_close(result.double(), exact, rtol=2e-2, atol=2e-2)


def test_carafe_of_a_mask_that_picks_one_cell_shifts_the_features(mmcv_ops):
    """Kernel 3, mask 1 at cell (row 0, column 1) of the kernel: the cell above."""
    features = torch.arange(1.0, 13.0).view(1, 1, 3, 4)
    masks = torch.zeros(1, 9, 6, 8)
    masks[:, 1] = 1
    upsampled = mmcv_ops.carafe(features, masks, 3, 1, 2)
    expected = torch.cat(
        [
            torch.zeros(1, 1, 2, 8),
            features.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :4],
        ],
        2,
    )
    assert torch.equal(upsampled, expected)


@pytest.mark.parametrize("scale", [1, 2])
def test_carafe_has_the_gradients_of_finite_differences(mmcv_ops, scale):
    features, masks = randn(2, 4, 3, 2), randn(2, 18, 3 * scale, 2 * scale, seed=1)
    inputs = [t.requires_grad_() for t in (features, masks)]
    gradcheck(lambda f, m: mmcv_ops.carafe(f, m, 3, 2, scale), inputs)


def test_carafe_naive_is_carafe(ext, mmcv_ops):
    features, masks = randn(1, 4, 3, 2).requires_grad_(), randn(1, 18, 6, 4, seed=1)
    plain = mmcv_ops.carafe(features, masks, 3, 2, 2)
    assert torch.equal(mmcv_ops.carafe_naive(features, masks, 3, 2, 2), plain)
    grad = randn(*plain.shape, seed=2)
    plain.backward(grad)
    grads = torch.zeros_like(features), torch.zeros_like(masks)
    ext.carafe_naive_backward(grad, features, masks, *grads, 3, 2, 2)
    assert torch.equal(grads[0], features.grad)


def test_masked_conv_is_a_convolution_at_the_masked_positions(mmcv_ops):
    x, weight, bias = randn(1, 2, 5, 6), randn(3, 2, 3, 3, seed=1), randn(3, seed=2)
    mask = randn(1, 5, 6, seed=3) > 0
    result = mmcv_ops.masked_conv.masked_conv2d(x, mask, weight, bias, 1)
    torch.testing.assert_close(result, functional.conv2d(x, weight, bias, padding=1) * mask)
    nothing = mmcv_ops.masked_conv.masked_conv2d(x, torch.zeros_like(mask), weight, bias, 1)
    assert not nothing.any()


@pytest.mark.parametrize("layer", ["carafe", "masked_conv2d", "deform_conv2d", "deform_roi_pool"])
def test_channels_last_changes_nothing(mmcv_ops, layer):
    """Compiled mmcv stops, or reads wrong values, for channels_last features.

    mmcv.ops itself does not take such weights of a masked convolution.
    """
    mask = randn(1, 5, 6, seed=3) > 0
    arguments = {
        "carafe": (randn(1, 18, 10, 12), 3, 2, 2),
        "masked_conv2d": (mask, randn(3, 4, 3, 3), randn(3), 1),
        "deform_conv2d": (randn(1, 8, 4, 5), randn(3, 4, 2, 2)),
        "deform_roi_pool": (torch.tensor([[0.0, 1, 1, 4, 4]]).double(), None, (2, 2), 1.0, 2),
    }[layer]
    function = getattr(mmcv_ops, layer, None) or getattr(mmcv_ops.masked_conv, layer)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        tensors = [
            t.contiguous(memory_format=memory_format)
            if isinstance(t, torch.Tensor) and t.dim() == 4 and layer != "masked_conv2d"
            else t
            for t in arguments
        ]
        features = randn(1, 4, 5, 6).contiguous(memory_format=memory_format).requires_grad_()
        output = function(features, *tensors)
        results.append([output])
        if layer != "masked_conv2d":  # mmcv gives it no gradient
            results[-1] += torch.autograd.grad(output.square().sum(), features)
    torch.testing.assert_close(*results)
