"""Stopping a run when so many images fail that the cause is the device or the disk."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

FAILURES_IN_A_ROW = 50  # images that cannot be computed, after which a run stops
RECENT = 1000  # number of last images for which the share of failures is computed
_SHOWN = 5  # failed images that are named at the end


class Health:
    """Counts failed images, and delays the writing of shards while the last image has failed.

    A shard that ends with failures may be the first one damaged by a failing device or a lost
    disk. It is written when a later image succeeds, or at the end, and discarded if the run stops.

    Args:
        max_bad_fraction: Share of the last 1000 images that may fail.
        folder: Folder of the run, for messages.
    """

    def __init__(self, max_bad_fraction: float, folder: Path) -> None:
        self._max_bad_fraction, self._folder = max_bad_fraction, folder
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._failed_in_a_row = self._failed = 0
        self._last_succeeded = True
        self._examples: list[str] = []
        self._delayed_writes: deque[Callable[[], None]] = deque()

    def add(self, path: str, readable: bool, record: Mapping[str, Any]) -> None:
        """Count an image.

        Args:
            path: Path of the image.
            readable: Whether the file could be read.
            record: Record of the image; without ``height`` if it failed.

        Raises:
            RuntimeError: If too many images have failed.
        """
        failed = "height" not in record
        self._recent.append(failed)
        self._last_succeeded = not failed
        if failed:
            self._failed += 1
            if len(self._examples) < _SHOWN:
                self._examples.append(f"{path}: {record['reason']}")
        if readable:
            self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
        if self._failed_in_a_row == FAILURES_IN_A_ROW:
            raise RuntimeError(
                f"{self._failed_in_a_row} images in a row could be read but not computed: check "
                f"the device and the model. {self._folder} is not finished. The last image: "
                f"{path}: {record['reason']}"
            )
        if failed and len(self._recent) == RECENT:
            example, bad = f"{path}: {record['reason']}", sum(self._recent)
            refuse_too_many(bad, RECENT, self._max_bad_fraction, example, self._folder)

    def delay(self, write: Callable[[], None]) -> None:
        """Register the function that writes a complete shard, for :meth:`write_delayed`."""
        self._delayed_writes.append(write)

    def write_delayed(self, at_end: bool = False) -> None:
        """Write the registered shards if the last image has succeeded, or at the end."""
        while self._delayed_writes and (self._last_succeeded or at_end):
            self._delayed_writes.popleft()()

    def report(self) -> None:
        """Log a warning that names the first of the images that failed."""
        if self._failed:
            examples = "; ".join(self._examples)
            print_log(f"failed images: {self._failed} ({examples})", "current", logging.WARNING)


def too_many(failed: int, count: int, limit: float) -> bool:
    """Whether all images failed, or a larger share than ``limit``."""
    return failed == count or failed > limit * count


def refuse_too_many(failed: int, count: int, limit: float, example: str, folder: Path) -> None:
    """Stop a run in which too many images cannot be used.

    Args:
        failed: Number of images that cannot be used.
        count: Number of images they are counted among.
        limit: Share that may fail.
        example: A failed image with its reason.
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
        f"{what}; {folder} is not finished. Check the disk and the paths, and run the same command "
        "again: it continues where it stopped, and tries the failed images again. One of them: "
        f"{example}"
    )
