"""When it is not the images: a device that dies, a disk that is gone."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

FAILURES_IN_A_ROW = 50  # of computing; with so many, it is not the images
RECENT = 1000  # images of which a share is taken


class Health:
    """Watches how many images fail; keeps shards back until the machine is known to be sound.

    A shard that ends in failures may be the first that a dying device or a lost disk has spoiled.
    It is written when an image behind it succeeds, or at the end, and dropped when the run stops.

    Args:
        max_bad_fraction: Share of the last 1000 images that may fail.
        folder: Folder of the run, for messages.
    """

    def __init__(self, max_bad_fraction: float, folder: Path) -> None:
        self._limit, self._folder = max_bad_fraction, folder
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._in_a_row = 0
        self._sound = True
        self._failed: list[str] = []
        self._count = 0
        self._held: deque[Callable[[], None]] = deque()

    def add(self, path: str, readable: bool, record: Mapping[str, Any]) -> None:
        """Count an image.

        Args:
            path: Where it is.
            readable: Whether the file could be read.
            record: What has become of it.

        Raises:
            RuntimeError: If too many have failed.
        """
        failed = "height" not in record
        self._recent.append(failed)
        self._sound = not failed
        if failed:
            self._count += 1
            if len(self._failed) < 5:
                self._failed.append(f"{path}: {record['reason']}")
        if readable:
            self._in_a_row = self._in_a_row + 1 if failed else 0
        if self._in_a_row == FAILURES_IN_A_ROW:
            raise RuntimeError(
                f"{self._in_a_row} images in a row could be read but not computed: look at the "
                f"device and the model. {self._folder} is not finished. The last: {path}: "
                f"{record['reason']}"
            )
        bad = sum(self._recent) if failed and len(self._recent) == RECENT else 0
        if bad:
            refuse_too_many(bad, RECENT, self._limit, f"{path}: {record['reason']}", self._folder)

    def hold(self, write: Callable[[], None]) -> None:
        """Take the writing of a shard that is complete."""
        self._held.append(write)

    def release(self, at_end: bool = False) -> None:
        """Write the shards that may be written."""
        while self._held and (self._sound or at_end):
            self._held.popleft()()

    def report(self) -> None:
        """Name the first of the images that failed."""
        if self._count:
            shown = "; ".join(self._failed)
            print_log(f"{self._count} images failed: {shown}", "current", logging.WARNING)


def too_many(failed: int, count: int, limit: float) -> bool:
    """Whether a run is worthless: all images failed, or a larger share than ``limit``."""
    return failed == count or failed > limit * count


def refuse_too_many(failed: int, count: int, limit: float, named: str, folder: Path) -> None:
    """Stop a run of which too many images cannot be used.

    Args:
        failed: How many cannot be used,
        count: of how many.
        limit: Share that may fail.
        named: One of them, with its reason.
        folder: Folder of the run.

    Raises:
        RuntimeError: If all images failed, or a larger share than ``limit``.
    """
    if not too_many(failed, count, limit):
        return
    what = (
        f"none of {count} images could be used"
        if failed == count
        else f"{failed} of {count} images could not be used, more than the {limit:.0%} that may "
        "fail (--max-bad-fraction)"
    )
    raise RuntimeError(
        f"{what}; {folder} is not finished. Look at the disk and the paths, and run the same "
        f"again: it goes on where it stopped, and tries those that failed. One of them: {named}"
    )
