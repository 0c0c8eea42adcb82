"""The device of a run, and the precision of its computation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def chosen_device(name: str | None) -> torch.device:
    """The device to compute on; by default CUDA if there is any, else the CPU.

    Raises:
        ValueError: If there is no such device, or Step 2 does not work on it.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: expected cpu, cuda or cuda:N ({error})") from error
    require_supported(device)
    return device


def require_supported(device: torch.device) -> None:
    """Refuse a device that Step 2 does not work on.

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
    """Make a device the current one, in the precision that is asked for."""
    require_supported(device)
    if device.type == "cpu":
        yield
        return
    backends: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    with torch.cuda.device(device):
        try:
            for backend in backends:
                backend.allow_tf32 = tf32
            yield
        finally:
            for backend, allowed in zip(backends, before, strict=True):
                backend.allow_tf32 = allowed
