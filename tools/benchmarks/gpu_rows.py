"""Options and results of the sections of gpu.py."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

GOAL = 1000  # images per second of Step 2 with ResNet-50, four views, bf16, on an H100


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        what: Name of the measurement or comparison.
        result: The measured values.
        state: ``ok``, ``failed``, ``skipped`` or ``lacking`` (a device has no such operator).
    """

    what: str
    result: str
    state: str = "ok"


class Options(NamedTuple):
    """Options of the command line.

    Attributes:
        device: ``cuda`` or ``cpu``.
        quick: Whether to use tiny sizes, to test the script.
        images: Folder of class folders.
        workers: Number of reading processes.
    """

    device: str
    quick: bool
    images: Path
    workers: int


Report = Callable[[Row], None]


def wait() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> str:
    """Format the peak of the memory that torch has reserved on the GPU."""
    if not torch.cuda.is_available():
        return "no GPU memory"
    return f"{torch.cuda.max_memory_reserved() / 2**30:.1f} GiB of GPU memory at most"
