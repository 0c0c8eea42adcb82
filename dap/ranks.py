"""The processes of a run: calls in the first process for all, comparison and waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size

T = TypeVar("T")
_ENDED_GROUPS: list[Any] = []  # see end_group
TIMEOUT = timedelta(days=2)  # long, since the launcher ends a run in which a process has died


def end_group(group: Any = None) -> None:
    """End a process group, by default that of all processes.

    A reference to the group is kept, so that it is never deleted. Deleting a gloo group waits for
    its threads with Python's global lock held, while a thread that still has to release a result
    waits for that lock: with torch 2.6, runs were seen to hang after their last step.
    """
    _ENDED_GROUPS.append(dist.group.WORLD if group is None else group)
    dist.destroy_process_group(group)


class Ranks:
    """The processes that share a run.

    They communicate in a separate group on the CPU, because the default group times out after some
    minutes, and the first process may need longer to list millions of images.

    Attributes:
        rank: Rank of this process.
        size: Number of processes.
    """

    def __init__(self) -> None:
        self.rank, self.size = get_rank(), get_world_size()
        self._group: Any = None
        if self.size > 1:
            self._group = dist.new_group(backend="gloo", timeout=TIMEOUT)

    def on_first_rank(self, function: Callable[[], T]) -> T:
        """Call a function in the first process; return its result, or raise its error, in all."""
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = function()
            except (ValueError, RuntimeError, OSError) as error:
                if self.size == 1:
                    raise
                outcome[1] = error
        if self.size > 1:
            dist.broadcast_object_list(outcome, src=0, group=self._group)
        if outcome[1] is not None:
            raise outcome[1]
        result: T = outcome[0]
        return result

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in all processes."""
        values: list[Any] = [value]
        if self.size > 1:
            values = [None] * self.size
            dist.all_gather_object(values, value, group=self._group)
        return values

    def require_same(self, fields: Mapping[str, Any], cure: str) -> None:
        """Check that a description of the work is the same in all processes.

        Args:
            fields: Names and values; a value may be a dict of fields.
            cure: What to do about a difference, for the error message.

        Raises:
            ValueError: In all processes, if a field differs; it names field, rank and values.
        """
        by_rank = self.gather(_flat(fields))
        for rank, values in enumerate(by_rank):
            for name in sorted(by_rank[0].keys() | values.keys()):
                first, other = by_rank[0].get(name), values.get(name)
                if first != other:
                    raise ValueError(
                        f"the processes of this run differ: {name} is {other!r} in rank {rank} and "
                        f"{first!r} in rank 0. {cure}"
                    )

    def wait(self) -> None:
        """Wait for all other processes."""
        if self.size > 1:
            dist.barrier(group=self._group)

    def close(self) -> None:
        """End the group."""
        if self._group is not None:
            end_group(self._group)


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


@contextmanager
def all_ranks() -> Iterator[Ranks]:
    """Create the :class:`Ranks` of a run, and close them at its end."""
    ranks = Ranks()
    yield ranks
    ranks.close()  # not after an error: other processes may be waiting until the launcher ends them
