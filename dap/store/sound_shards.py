"""Which files of an unfinished store can be used, and which are replaced by better ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

from dap.images.image_files import TEMPORARY

from .reader import ShardFile, digests, shard_files
from .shard import Shard


class SoundShard(NamedTuple):
    """A complete shard of the run.

    Attributes:
        path: The file.
        digest: Its SHA-256.
        failed: Number of its images that could not be used.
    """

    path: Path
    digest: str
    failed: int


class SoundShards(NamedTuple):
    """The shards of a run.

    Attributes:
        best: By number, the shard with the fewest images that failed.
        replaced: Files of which ``best`` has a better one.
    """

    best: dict[int, SoundShard]
    replaced: list[Path]


def sound_shards(folder: Path, count: int, identity: str) -> SoundShards:
    """Find the complete shards of this run; others are removed and named.

    Args:
        folder: Folder of the store.
        count: Number of shards of the whole store; files of higher numbers are not looked at.
        identity: Hash of the run.
    """
    files = [file for file in shard_files(folder) if file.number < count]
    best: dict[int, SoundShard] = {}
    replaced: list[Path] = []
    for file, digest in zip(files, digests([file.path for file in files]), strict=True):
        fault, failed = _fault_of(file, digest, identity)
        if fault:
            print_log(f"{file.path} is removed: {fault}", "current", logging.WARNING)
            file.path.unlink()
            continue
        shard, other = SoundShard(file.path, digest, failed), best.get(file.number)
        if other is not None and other.failed <= shard.failed:
            replaced.append(shard.path)
            continue
        if other is not None:
            replaced.append(other.path)
        best[file.number] = shard
    return SoundShards(best, replaced)


def failed_rows(shard: Shard, temporary_only: bool) -> Iterator[tuple[int, str]]:
    """Rows of the images of a shard that could not be used, with the reasons.

    Args:
        shard: The shard.
        temporary_only: Whether only failures count that are not the image's own, such as a disk
            that did not answer.
    """
    for row, reason in shard.reasons():
        if not shard.sizes_hw[0][row] and (reason.startswith(TEMPORARY) or not temporary_only):
            yield row, reason


def _fault_of(file: ShardFile, digest: str, identity: str) -> tuple[str, int]:
    """What is wrong with a file, or '', and how many of its images failed."""
    if not digest.startswith(file.digest):
        return "it is damaged", 0
    metadata = Shard(file.path).metadata
    if metadata.get("identity") != identity:
        return "it is of another run", 0
    return "", int(metadata["statistics"]["failed"])
