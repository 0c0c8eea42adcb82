"""The settings of a GPU during a run; they can be set where there is none."""

import contextlib

import pytest
import torch

from dap import devices

GPU = torch.device("cuda", 0)
cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul


@pytest.fixture(autouse=True)
def pretended_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    flags = [(cudnn, "benchmark"), (cudnn, "deterministic"), (matmul, "allow_tf32")]
    before = [getattr(*flag) for flag in flags]
    yield
    for flag, value in zip(flags, before, strict=True):
        setattr(*flag, value)


def state():
    return [cudnn.benchmark, cudnn.deterministic, *precisions()]


def precisions():
    return [getattr(owner, name) for owner, name, _ in devices._tf32_settings(True)]


@pytest.mark.parametrize("tf32", [True, False])
def test_algorithms_are_the_same_in_each_run_and_all_is_restored(tf32):
    cudnn.benchmark, cudnn.deterministic = True, False
    before = state()
    with devices.computing_on(GPU, tf32):
        assert (cudnn.benchmark, cudnn.deterministic) == (False, True)
        assert precisions() == [value for *_, value in devices._tf32_settings(tf32)]
    assert state() == before


def test_all_is_restored_after_an_error():
    matmul.allow_tf32 = True
    before = state()
    with pytest.raises(ZeroDivisionError), devices.computing_on(GPU, False):
        raise ZeroDivisionError
    assert state() == before
    assert matmul.allow_tf32


@pytest.mark.skipif(not hasattr(cudnn, "conv"), reason="settings of torch 2.9 and newer")
def test_settings_of_new_names_do_no_harm():
    """Reading an old name is an error once the new one is set: at the start of a run and after."""
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        with pytest.raises(RuntimeError, match="mix of the legacy and new"):
            _ = matmul.allow_tf32
        with devices.computing_on(GPU, False):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before
    assert not matmul.allow_tf32
