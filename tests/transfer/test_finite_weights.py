"""Weights of a training that has diverged are named, others pass."""

import pytest
import torch

from dap.checkpoint import require_finite

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([1.0, NAN]),
        torch.tensor([INF, -INF]),
        torch.tensor([0.0, -INF]),
        torch.tensor([INF], dtype=torch.float16),
        torch.tensor([NAN]).to(torch.float8_e4m3fn),
        torch.tensor([complex(0, NAN)]),
    ],
)
def test_not_finite(values):
    weights = {"conv": torch.ones(3), "fc": values, "bn": torch.ones(3)}
    with pytest.raises(ValueError, match=r"run\.pth: fc holds .* one of 1 such .* among 3"):
        require_finite(weights, "run.pth")


@pytest.mark.parametrize(
    "values",
    [
        torch.full((9,), 60000.0, dtype=torch.float16),  # whose sum is not
        torch.full((4,), torch.finfo(torch.float32).max),
        torch.ones(5).to(torch.float8_e4m3fn),
        torch.tensor([2**62, 2**62, 2**62]),
        torch.tensor([True, False]),
        torch.empty(0),
    ],
)
def test_finite(values):
    require_finite({"fc": values}, "run.pth")
