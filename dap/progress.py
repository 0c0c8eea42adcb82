"""Progress of long work: a bar in a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from tqdm import tqdm

LOG_SECONDS = 30.0


class Progress:
    """Count images on the main process, with rate and time left.

    Args:
        share: Number of images this process will do.
        total: Number of images all processes will do.
        world_size: Number of processes that work side by side: the rate shown is that of all.
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
        """Say how far the work is."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = self.done * self.world_size / seconds
        left = timedelta(seconds=round((self.share - self.done) * seconds / max(self.done, 1)))
        done = min(self.done * self.world_size, self.total)
        return f"pseudo boxes: {done}/{self.total} images, {rate:.1f} images/s, {left} left"

    def close(self) -> str:
        """End the bar; return the closing line."""
        if self.bar is not None:
            self.bar.close()
        return self.line()
