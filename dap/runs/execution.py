"""How a run is carried out: processes, batches, and what to do about failures."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Execution:
    """How a run is carried out.

    The boxes do not depend on it, except for rounding, which ``tf32`` and ``batch_size`` change.

    Attributes:
        num_workers: Processes per rank that read images. With 0, the rank itself reads them, and a
            decoder that crashes or hangs ends the run. Defaults to :func:`default_workers`.
        batch_size: Number of 4:3 images at the largest scale that are computed at a time on the
            device, each with its mirror image; more of smaller images, fewer of larger ones. 1
            means one image at a time, whatever its size. Defaults to 32 on a GPU, and to 1 on a
            CPU, where larger batches are not faster.
        max_bad_fraction: The run stops if more than this share of all images, or of the last 1000,
            cannot be used, because the images are then unlikely to be the cause.
        retry_failed: Whether images that an earlier run could not use are tried again.
        read_timeout: Maximum time to read an image, in seconds.
        shard_size: Images per shard. Defaults to a size that depends on the number of images.
            A store keeps its shard size.
        keep_going: Whether the run continues if its first boxes look as if the normalisation were
            wrong or classes were mixed up.
        coco: Whether to write ``annotations.json``. Otherwise tools/convert_annotations.py can
            write it later.
        tf32: Whether a GPU may compute float32 in TF32.

    Raises:
        ValueError: If a value is out of range.
    """

    num_workers: int | None = None
    batch_size: int | None = None
    max_bad_fraction: float = 0.5
    retry_failed: bool = False
    read_timeout: float = 120.0
    shard_size: int | None = None
    keep_going: bool = False
    coco: bool = True
    tf32: bool = True

    def __post_init__(self) -> None:
        for name, least in (("num_workers", 0), ("batch_size", 1), ("shard_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: expected at least {least}, found {value}")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(
                f"max_bad_fraction: expected a value in [0, 1], found {self.max_bad_fraction}"
            )
        if not self.read_timeout > 0:
            raise ValueError(f"read_timeout: expected seconds, found {self.read_timeout}")

    def workers(self, on_gpu: bool) -> int:
        """Return ``num_workers``, or its default for a rank on a GPU or on a CPU."""
        if self.num_workers is not None:
            return self.num_workers
        return default_workers(on_gpu, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def default_workers(on_gpu: bool, local_ranks: int) -> int:
    """Return the number of processes per rank that read images, by the cores of this machine.

    Args:
        on_gpu: Whether the rank computes on a GPU. On a CPU, a forward pass takes a hundred times
            as long as reading an image, so few readers are enough.
        local_ranks: Number of ranks on this machine, which share its cores.

    Returns:
        At least 1, at most 16.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    per_rank = (cores or 1) // max(1, local_ranks)
    return min(16, max(1, per_rank - 1 if on_gpu else per_rank // 8))
