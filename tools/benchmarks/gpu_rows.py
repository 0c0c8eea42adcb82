"""What the sections of gpu.py are given and what they report."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

GOAL = 1000  # images per second of Step 2 with ResNet-50, four views, bf16, on an H100


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        what: What was measured or compared.
        result: The figures.
        state: ``ok``, ``failed``, ``skipped`` or ``lacking`` (one side has no such operator).
    """

    what: str
    result: str
    state: str = "ok"


class Options(NamedTuple):
    """What the command line says.

    Attributes:
        device: ``cuda`` or ``cpu``.
        quick: Whether to take tiny sizes, to see that the script works.
        images: Folder of class folders.
        workers: Processes that read images.
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
    """Largest memory that torch has reserved on the GPU so far, in words."""
    if not torch.cuda.is_available():
        return "no GPU memory"
    return f"{torch.cuda.max_memory_reserved() / 2**30:.1f} GiB of GPU memory at most"
