"""Settings of the C library's memory allocator that speed up convolutions on a CPU."""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8  # malloc.h of glibc
LARGEST_INT = 2**31 - 1  # largest threshold that mallopt accepts
TOP_PAD = 256 * 2**20


def tune_malloc() -> bool:
    """Let glibc reuse the memory of feature maps, until the end of this process.

    By default, glibc requests memory from the kernel for every large tensor and returns it when
    the tensor is freed, and the kernel clears each page again (page faults). For
    EfficientNet-lite0 this takes a quarter to a third of the time of a forward, more with larger
    batches. The settings are:

    - ``M_MMAP_MAX = 0``: large blocks are allocated on the heap, not by a separate mapping, so
      that a freed block can be reused.
    - ``M_TRIM_THRESHOLD``: memory at the top of the heap is kept until 2 GiB are free.
    - ``M_TOP_PAD = 256 MiB``: the heap grows in large steps, with few system calls.
    - ``M_ARENA_MAX = 1``: all threads share one heap.

    They correspond to the variables ``MALLOC_MMAP_MAX_``, ``MALLOC_TRIM_THRESHOLD_``,
    ``MALLOC_TOP_PAD_`` and ``MALLOC_ARENA_MAX``, which have to be set before a process starts;
    values that the user has set are kept. The function can be called at any time, also after
    torch is imported. The process keeps the memory of its largest forward, so call it only if the
    network runs on the CPU.

    Returns:
        Whether all settings were made; False if the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        "MALLOC_MMAP_MAX_": (M_MMAP_MAX, 0),
        "MALLOC_TRIM_THRESHOLD_": (M_TRIM_THRESHOLD, LARGEST_INT),
        "MALLOC_TOP_PAD_": (M_TOP_PAD, TOP_PAD),
        "MALLOC_ARENA_MAX": (M_ARENA_MAX, 1),
    }
    results = [mallopt(*pair) for name, pair in settings.items() if name not in os.environ]
    return all(results)
