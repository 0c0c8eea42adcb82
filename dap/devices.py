"""Choosing the device of a run, and the precision of its computation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

# Errors of a device itself; torch has a class for them since 2.8.
DEVICE_ERRORS = (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()
_OUT_OF_MEMORY = (
    "out of memory",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "unable to find an engine",  # no convolution of cuDNN found memory to work in
    "can't allocate memory",
)


def chosen_device(name: str | None) -> torch.device:
    """Return the device to compute on; by default CUDA if available, else the CPU.

    Raises:
        ValueError: If the device does not exist, or Step 2 does not support it.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: expected cpu, cuda or cuda:N ({error})") from error
    require_supported(device)
    return device


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, after which the device can still be used.

    Libraries that torch calls report it only in the message. So does the device, for memory that
    torch does not manage, such as that of the code of a kernel.
    """
    return isinstance(error, torch.OutOfMemoryError) or any(
        text in str(error) for text in _OUT_OF_MEMORY
    )


def require_supported(device: torch.device) -> None:
    """Refuse a device that Step 2 does not support.

    Raises:
        ValueError: If it is neither a CPU nor a CUDA device that exists.
    """
    if device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"device {str(device)!r}: expected cpu, cuda or cuda:N; Step 2 does not work on others"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {str(device)!r}: this machine has {torch.cuda.device_count()} CUDA devices. "
            "Give --device cpu, or one of them"
        )


@contextmanager
def computing_on(device: torch.device, tf32: bool) -> Iterator[None]:
    """Make a device the current one, and set the precision of float32 on a GPU.

    On a GPU, cuDNN is restricted to algorithms that give the same bits in each run, even if the
    calling training lets cuDNN select them by timing (``cudnn.benchmark``). All settings are
    restored at the end.

    Args:
        device: A CPU or a CUDA device.
        tf32: Whether float32 may be computed in TF32.

    Raises:
        ValueError: If Step 2 does not support the device.
    """
    require_supported(device)
    if device.type == "cpu":
        yield
        return
    settings = [
        *_tf32_settings(tf32),
        (torch.backends.cudnn, "benchmark", False),
        (torch.backends.cudnn, "deterministic", True),
    ]
    with torch.cuda.device(device), ExitStack() as stack:
        for owner, name, value in settings:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


def _tf32_settings(tf32: bool) -> list[tuple[Any, str, Any]]:
    """Return the settings of TF32: owner, name and value.

    Since torch 2.9 they have new names, and reading the old names is an error if the new ones
    have been set.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(cudnn, "conv"):
        value = "tf32" if tf32 else "ieee"
        return [(matmul, "fp32_precision", value), (cudnn.conv, "fp32_precision", value)]
    return [(owner, "allow_tf32", tf32) for owner in (matmul, cudnn)]
