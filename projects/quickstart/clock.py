"""Estimate the remaining time of the quick start from the pace so far."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

PRIOR_SECONDS = 20.0  # weight of the initial pace in the average with the measured one


class Clock:
    """Estimate the remaining time.

    Args:
        stages: For each stage, the unfinished steps and their typical duration in seconds. Stages
            run one after the other, the steps of a stage at the same time.
        pace: Initial guess of the machine's pace, in seconds per typical second.
    """

    def __init__(self, stages: Sequence[Mapping[str, float]], pace: float = 1.0) -> None:
        self.stages = stages
        self.prior = pace
        self.done = {name: 0.0 for stage in stages for name in stage}
        self.started = time.monotonic()

    def note(self, name: str, share: float) -> None:
        """Record that a share of a step, in [0, 1], is done; a share never decreases."""
        self.done[name] = max(self.done[name], min(1.0, share))

    def seconds_left(self) -> float:
        """Return the estimated seconds until the last step ends."""
        spent = time.monotonic() - self.started
        done = sum(_longest(stage, self.done) for stage in self.stages)
        total = sum(max(stage.values()) for stage in self.stages if stage)
        pace = (spent + self.prior * PRIOR_SECONDS) / (done + PRIOR_SECONDS)
        return pace * (total - done)

    def __str__(self) -> str:
        """Format the remaining time, for example ``'3:05 left'``."""
        minutes, seconds = divmod(round(self.seconds_left()), 60)
        return f"{minutes}:{seconds:02d} left"


def _longest(stage: Mapping[str, float], done: Mapping[str, float]) -> float:
    """Return how many typical seconds of a stage are done; its slowest step determines them."""
    left = max((seconds * (1 - done[name]) for name, seconds in stage.items()), default=0.0)
    return max(stage.values(), default=0.0) - left
