"""The processes of a run: what the first does for all, and how they wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size

T = TypeVar("T")
_ENDED: list[Any] = []  # groups that have ended, see end_group
PATIENCE = timedelta(days=2)  # the launcher ends a run in which a process has died, not this


def end_group(group: Any = None) -> None:
    """End a process group, by default the one of all processes.

    The object is kept. When gloo's group is deleted, it waits for its threads while it holds the
    global lock of Python, and a thread that still has to release a result waits for that lock:
    with torch 2.6 runs were seen to hang so after their last step.
    """
    _ENDED.append(dist.group.WORLD if group is None else group)
    dist.destroy_process_group(group)


class Ranks:
    """The processes that share a run.

    They talk through a group of their own on the CPU: the default group gives up after some
    minutes, less than the first may need to list or to merge millions of images.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
    """

    def __init__(self) -> None:
        self.rank, self.size = get_rank(), get_world_size()
        self._group: Any = None
        if self.size > 1:
            self._group = dist.new_group(backend="gloo", timeout=PATIENCE)

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
        """The values of all processes, in all processes."""
        values: list[Any] = [value]
        if self.size > 1:
            values = [None] * self.size
            dist.all_gather_object(values, value, group=self._group)
        return values

    def require_same(self, fields: Mapping[str, Any], cure: str) -> None:
        """Compare what each process is about to do.

        Args:
            fields: Names and values, which may be dicts of fields in turn.
            cure: What to do about a difference.

        Raises:
            ValueError: In all processes, if a field differs; it names field, rank and values.
        """
        every = self.gather(_flat(fields))
        for rank, values in enumerate(every):
            for name in sorted(every[0].keys() | values.keys()):
                first, other = every[0].get(name), values.get(name)
                if first != other:
                    raise ValueError(
                        f"the processes of this run differ: {name} is {other!r} in rank {rank} and "
                        f"{first!r} in rank 0. {cure}"
                    )

    def wait(self) -> None:
        """Wait for all others."""
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
    """The processes that share a run, as long as it takes."""
    ranks = Ranks()
    yield ranks
    ranks.close()  # after an error the launcher ends the others, which may be waiting
