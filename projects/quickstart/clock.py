"""Time left of the whole quick start, by typical seconds of its steps and the pace so far."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

PRIOR_SECONDS = 20.0  # of typical pace, which the measured one is averaged with


class Clock:
    """Estimates the time left.

    Args:
        stages: Typical seconds of the steps still to do, by name; steps of a stage run side by
            side, and stages one after the other.
        pace: Of this machine, as far as known: seconds per typical second.
    """

    def __init__(self, stages: Sequence[Mapping[str, float]], pace: float = 1.0) -> None:
        self.stages = stages
        self.prior = pace
        self.done = {name: 0.0 for stage in stages for name in stage}
        self.started = time.monotonic()

    def note(self, name: str, share: float) -> None:
        """Note that a share of a step, in [0, 1], is done; less than before changes nothing."""
        self.done[name] = max(self.done[name], min(1.0, share))

    def seconds_left(self) -> float:
        """Estimated seconds until the last step ends."""
        spent = time.monotonic() - self.started
        done = sum(_longest(stage, self.done) for stage in self.stages)
        total = sum(max(stage.values()) for stage in self.stages if stage)
        pace = (spent + self.prior * PRIOR_SECONDS) / (done + PRIOR_SECONDS)
        return pace * (total - done)

    def __str__(self) -> str:
        """The time left, as ``'3:05 left'``."""
        minutes, seconds = divmod(round(self.seconds_left()), 60)
        return f"{minutes}:{seconds:02d} left"


def _longest(stage: Mapping[str, float], done: Mapping[str, float]) -> float:
    """Typical seconds of a stage that are done: it lasts until its slowest step ends."""
    left = max((seconds * (1 - done[name]) for name, seconds in stage.items()), default=0.0)
    return max(stage.values(), default=0.0) - left
