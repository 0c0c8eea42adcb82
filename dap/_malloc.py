"""Settings of the C library's memory allocator that make convolutions on a CPU faster."""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8  # malloc.h of glibc
NEVER = 2**31 - 1  # the largest threshold that mallopt, which takes an int, can set
TOP_PAD = 256 * 2**20


def tune_malloc() -> bool:
    """Let glibc keep the memory of feature maps for the next ones, in this process.

    As it stands, glibc asks the kernel for every large tensor and gives it back at once, and the
    kernel clears each page anew (page faults): for EfficientNet-lite0 a quarter to a third of a
    forward's time, more with larger batches. The settings, each until the end of the process:

    - ``M_MMAP_MAX = 0``: large blocks come from the heap, not from mappings of their own, so
      that a freed block can be used again.
    - ``M_TRIM_THRESHOLD``: the top of the heap is not given back below 2 GiB free.
    - ``M_TOP_PAD = 256 MiB``: the heap grows in large steps, in few system calls.

    - ``M_ARENA_MAX = 1``: all threads use this one heap, none of 64 MiB of its own.

    They equal the variables ``MALLOC_MMAP_MAX_``, ``MALLOC_TRIM_THRESHOLD_``,
    ``MALLOC_TOP_PAD_`` and ``MALLOC_ARENA_MAX``, which must be set before a process starts; a
    value that the user has set there stays. They may be made at any time, also after torch is
    imported. The process keeps the memory of its largest forward; call it only where the work is
    done on the CPU.

    Returns:
        Whether the settings were made: False where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        "MALLOC_MMAP_MAX_": (M_MMAP_MAX, 0),
        "MALLOC_TRIM_THRESHOLD_": (M_TRIM_THRESHOLD, NEVER),
        "MALLOC_TOP_PAD_": (M_TOP_PAD, TOP_PAD),
        "MALLOC_ARENA_MAX": (M_ARENA_MAX, 1),
    }
    made = [mallopt(*pair) for name, pair in settings.items() if name not in os.environ]
    return all(made)
