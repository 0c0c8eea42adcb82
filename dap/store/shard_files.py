"""Files of shards: their names, and which files of an unfinished store can be used."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

from dap.images.image_files import TEMPORARY

from .reader import SHARDS, digests
from .shard import Shard

_SHARD_NAME = re.compile(r"(\d{5,})-([0-9a-f]{16})\.arrow")


class ShardFile(NamedTuple):
    """A file in the folder of the shards.

    Attributes:
        path: Path of the file.
        number: Number of the shard.
        digest: First 16 hexadecimal digits of the SHA-256 that its content must have.
    """

    path: Path
    number: int
    digest: str


class ValidShard(NamedTuple):
    """A complete shard of the run.

    Attributes:
        path: Path of the file.
        digest: SHA-256 of the file.
        failed: Number of its images that could not be used.
    """

    path: Path
    digest: str
    failed: int


class ValidShards(NamedTuple):
    """The complete shards of a run.

    Attributes:
        best: By number, the file with the fewest images that failed.
        superseded: Other files of the same shards.
    """

    best: dict[int, ValidShard]
    superseded: list[Path]


def shard_name(number: int, content: bytes) -> str:
    """File name of a shard: its number and the start of the SHA-256 of its content."""
    return f"{number:05d}-{hashlib.sha256(content).hexdigest()[:16]}.arrow"


def shard_files(folder: Path) -> list[ShardFile]:
    """List the files of a store that are named like shards, sorted."""
    matches = (
        (path, _SHARD_NAME.fullmatch(path.name))
        for path in sorted((folder / SHARDS).glob("*.arrow"))
    )
    return [ShardFile(path, int(match[1]), match[2]) for path, match in matches if match]


def valid_shards(folder: Path, count: int, identity: str) -> ValidShards:
    """Find the complete shards of this run; remove damaged ones and those of other runs.

    Each removed file is named in a warning.

    Args:
        folder: Folder of the store.
        count: Number of shards of the whole store; files with higher numbers are ignored.
        identity: Hash of the run.
    """
    files = [file for file in shard_files(folder) if file.number < count]
    best: dict[int, ValidShard] = {}
    superseded: list[Path] = []
    for file, digest in zip(files, digests([file.path for file in files]), strict=True):
        fault, failed = _check(file, digest, identity)
        if fault:
            print_log(f"{file.path} is removed: {fault}", "current", logging.WARNING)
            file.path.unlink()
            continue
        shard, other = ValidShard(file.path, digest, failed), best.get(file.number)
        if other is not None and other.failed <= shard.failed:
            superseded.append(shard.path)
            continue
        if other is not None:
            superseded.append(other.path)
        best[file.number] = shard
    return ValidShards(best, superseded)


def failed_rows(shard: Shard, temporary_only: bool) -> Iterator[tuple[int, str]]:
    """Iterate over the images of a shard that could not be used: row and reason.

    Args:
        shard: The shard.
        temporary_only: Whether to yield only temporary failures, such as a disk that did not
            answer, which are not caused by the image.
    """
    for row, reason in shard.reasons():
        if not shard.sizes_hw[0][row] and (reason.startswith(TEMPORARY) or not temporary_only):
            yield row, reason


def _check(file: ShardFile, digest: str, identity: str) -> tuple[str, int]:
    """Return what is wrong with a file, or '', and how many of its images failed."""
    if not digest.startswith(file.digest):
        return "it is damaged", 0
    metadata = Shard(file.path).metadata
    if metadata.get("identity") != identity:
        return "it is of another run", 0
    return "", int(metadata["statistics"]["failed"])
