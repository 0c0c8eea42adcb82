import pytest
import torch
from torch.autograd import gradcheck


def ramp(height=6, width=8):
    """Features (1, 1, H, W) with the value x + 10 y at the middle of cell (x, y)."""
    return (torch.arange(height)[:, None] * 10.0 + torch.arange(width))[None, None]


def test_roi_align_averages_bilinear_samples(mmcv_ops):
    """Aligned: the middle of box (2, 1, 4, 3) is (3, 2), which is cell (2.5, 1.5)."""
    rois = torch.tensor([[0.0, 2, 1, 4, 3]])
    aligned = mmcv_ops.roi_align(ramp(), rois, (1, 1), 1.0, 2, "avg", True)
    assert aligned.item() == pytest.approx(2.5 + 15)
    legacy = mmcv_ops.roi_align(ramp(), rois, (1, 1), 1.0, 2, "avg", False)
    assert legacy.item() == pytest.approx(3 + 20)


def test_roi_align_takes_the_largest_sample(mmcv_ops):
    """2 x 2 samples per bin at 0.5 and 1.5 cells; not aligned, the last lies at (3.5, 2.5)."""
    rois = torch.tensor([[0.0, 2, 1, 4, 3]])
    output = mmcv_ops.roi_align(ramp(), rois, (1, 1), 1.0, 2, "max", False)
    assert output.item() == pytest.approx(3.5 + 25)


def test_roi_align_takes_as_many_samples_as_cells(mmcv_ops):
    """Sampling ratio 0 in a box of 4 x 4 cells: samples on the cells' middles."""
    features = torch.zeros(1, 1, 6, 8)
    features[0, 0, 2, 3] = 16.0
    rois = torch.tensor([[0.0, 1, 1, 5, 5]])
    assert mmcv_ops.roi_align(features, rois, (1, 1), 1.0, 0, "avg", True).item() == 1.0
    assert mmcv_ops.roi_align(features, rois, (1, 1), 1.0, 0, "max", True).item() == 16.0


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_of_channels_last_features_is_the_same(mmcv_ops, mode):
    features = torch.randn(2, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor([[0.0, 2, 1, 6, 5], [1, 0, 0, 8, 6]])
    results = [
        mmcv_ops.roi_align(x, rois, (2, 3), 1.0, 0, mode, True)
        for x in (features, features.contiguous(memory_format=torch.channels_last))
    ]
    assert torch.equal(*results)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_has_the_gradient_of_finite_differences(mmcv_ops, mode, ratio):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 2, 5, 6, generator=generator).double().requires_grad_()
    rois = torch.tensor([[0, 1.3, 0.7, 4.1, 3.9], [1, -1.0, -2.0, 7.0, 4.5]]).double()
    gradcheck(lambda x: mmcv_ops.roi_align(x, rois, (2, 2), 1.0, ratio, mode, True), features)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_roi_align_takes_16_bit_floats(mmcv_ops, mode, dtype):
    rois = torch.tensor([[0, 2, 1, 4, 3]], dtype=dtype)
    features = ramp().to(dtype).requires_grad_()
    output = mmcv_ops.roi_align(features, rois, (1, 1), 1.0, 2, mode, True)
    output.sum().backward()
    assert output.dtype == dtype
    assert output.item() == pytest.approx(17.5 if mode == "avg" else 23.0)
    assert features.grad.sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_of_no_roi(mmcv_ops, mode):
    features = torch.randn(1, 3, 4, 4, requires_grad=True)
    output = mmcv_ops.roi_align(features, torch.zeros(0, 5), (2, 2), 1.0, 0, mode, True)
    output.sum().backward()
    assert output.shape == (0, 3, 2, 2)
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_roi_pool_takes_the_largest_cell_of_each_bin(mmcv_ops):
    """x2 and y2 are inclusive: the box has 4 x 2 cells, its bins 2 x 2."""
    rois = torch.tensor([[0.0, 2, 1, 5, 2]])
    output = mmcv_ops.roi_pool(ramp(), rois, (1, 2), 1.0)
    assert output.flatten().tolist() == [23.0, 25.0]


def test_roi_pool_does_not_round_boxes_before_bins_as_torchvision_does(mmcv_ops):
    """x from 1.5 to 5.5: the first bin ends at 3.5 and holds cells 1 to 3, the second 3 to 5."""
    rois = torch.tensor([[0.0, 1.5, 0, 4.5, 0]])
    output = mmcv_ops.roi_pool(-ramp(), rois, (1, 2), 1.0)
    assert output.flatten().tolist() == [-1.0, -3.0]


def test_roi_pool_of_a_box_outside_and_of_a_malformed_one_is_zero(mmcv_ops):
    features = ramp().requires_grad_()
    rois = torch.tensor([[0.0, 20, 20, 30, 30], [0, 5, 5, 2, 2]])
    output = mmcv_ops.roi_pool(features, rois, (2, 2), 1.0)
    output.sum().backward()
    assert not output.any()
    assert not features.grad.any()


def test_roi_pool_sends_the_gradient_to_the_largest_cell(mmcv_ops):
    features = ramp().requires_grad_()
    mmcv_ops.roi_pool(features, torch.tensor([[0.0, 2, 1, 5, 2]] * 2), (1, 2), 1.0).sum().backward()
    expected = torch.zeros_like(features)
    expected[0, 0, 2, 3] = expected[0, 0, 2, 5] = 2.0
    assert torch.equal(features.grad, expected)


def test_roi_pool_has_the_gradient_of_finite_differences(mmcv_ops):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 2, 5, 6, generator=generator).double().requires_grad_()
    rois = torch.tensor([[0, 1.3, 0.7, 4.1, 3.9], [1, -1.0, -2.0, 7.0, 4.5]]).double()
    gradcheck(lambda x: mmcv_ops.roi_pool(x, rois, (2, 3), 0.8), features)


def test_roi_pool_of_no_roi(mmcv_ops):
    features = torch.randn(1, 3, 4, 4, requires_grad=True)
    output = mmcv_ops.roi_pool(features, torch.zeros(0, 5), (2, 2), 1.0)
    output.sum().backward()
    assert output.shape == (0, 3, 2, 2)


def test_deform_roi_pool_shifts_bins_by_offsets(mmcv_ops):
    """Offset x 0.5, y 1 in units of 0.1 times the box's 4 x 2 cells: 0.2 and 0.2 cells."""
    rois = torch.tensor([[0.0, 2, 1, 6, 3]])
    plain = mmcv_ops.deform_roi_pool(ramp(), rois, None, (1, 2), 1.0, 2, 0.1)
    offset = torch.tensor([0.5, 1.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2).contiguous()
    moved = mmcv_ops.deform_roi_pool(ramp(), rois, offset, (1, 2), 1.0, 2, 0.1)
    assert plain.flatten().tolist() == pytest.approx([17.5, 19.5])
    assert (moved - plain).flatten().tolist() == pytest.approx([2.2, 2.2], abs=1e-5)


def test_deform_roi_pool_without_offsets_is_roi_align(mmcv_ops):
    features = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor([[0.0, 2, 1, 6, 5], [1, 0.3, 0, 7.1, 5.2]])
    pooled = mmcv_ops.deform_roi_pool(features, rois, None, (2, 3), 1.0, 0, 0.1)
    torch.testing.assert_close(pooled, mmcv_ops.roi_align(features, rois, (2, 3), 1.0, 0))


def test_deform_roi_pool_has_the_gradient_of_finite_differences(mmcv_ops):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(1, 2, 7, 8, generator=generator).double().requires_grad_()
    offset = torch.randn(2, 2, 2, 2, generator=generator).double().requires_grad_()
    rois = torch.tensor([[0, 2.3, 1.7, 5.1, 4.9], [0, 1.0, 1.5, 4.2, 4.5]]).double()
    gradcheck(
        lambda x, o: mmcv_ops.deform_roi_pool(x, rois, o, (2, 2), 1.0, 2, 0.1), (features, offset)
    )
