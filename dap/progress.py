"""Progress of long work: a bar in a terminal, regular log lines elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from tqdm import tqdm

LOG_SECONDS = 30.0


class Progress:
    """Counts images, and shows rate and time left in the main process.

    Args:
        share: Number of images that this process will compute.
        total: Number of images that all processes will compute.
        world_size: Number of processes that compute in parallel. The rate shown is that of all.
    """

    def __init__(self, share: int, total: int, world_size: int = 1) -> None:
        self.share, self.total, self.world_size, self.done = share, total, world_size, 0
        self.started = self.logged = time.monotonic()
        terminal = sys.stderr.isatty() and is_main_process()
        self.bar = tqdm(total=total, unit="img") if terminal else None

    def step(self) -> None:
        """Count one image of this process."""
        self.done += 1
        if self.bar is not None:
            self.bar.update(self.world_size)
        elif is_main_process() and time.monotonic() - self.logged > LOG_SECONDS:
            self.logged = time.monotonic()
            print_log(self.line(), logger="current")

    def line(self) -> str:
        """Return the progress, rate and time left in words."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = self.done * self.world_size / seconds
        time_left = timedelta(seconds=round((self.share - self.done) * seconds / max(self.done, 1)))
        done = min(self.done * self.world_size, self.total)
        return f"pseudo boxes: {done}/{self.total} images, {rate:.1f} images/s, {time_left} left"

    def close(self) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
