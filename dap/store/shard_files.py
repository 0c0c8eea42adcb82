"""Files of shards: their names, and which files of an unfinished store can be used."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

from dap.images.image_files import TEMPORARY

from .reader import SHARDS, digests
from .shard import Shard

_SHARD_NAME = re.compile(r"(\d{5,})-[0-9a-f]{16}\.arrow")


class ValidShard(NamedTuple):
    """A complete shard of the run.

    Attributes:
        shard: The shard.
        digest: SHA-256 of its file.
    """

    shard: Shard
    digest: str


def shard_name(number: int, digest: str) -> str:
    """File name of a shard: its number and the start of the SHA-256 of its content."""
    return f"{number:05d}-{digest[:16]}.arrow"


def shard_files(folder: Path) -> list[tuple[int, Path]]:
    """List the files of a store that are named like shards, with their numbers, sorted."""
    paths = (folder / SHARDS).glob("*.arrow")
    matches = ((_SHARD_NAME.fullmatch(path.name), path) for path in paths)
    return sorted((int(match[1]), path) for match, path in matches if match)


def valid_shards(
    folder: Path, count: int, identity: str
) -> tuple[dict[int, ValidShard], list[Path]]:
    """Find the complete shards of this run; remove damaged ones and those of other runs.

    Each removed file is named in a warning.

    Args:
        folder: Folder of the store.
        count: Number of shards of the whole store; files with higher numbers are ignored.
        identity: Hash of the run.

    Returns:
        Shard number, ascending → the file with the fewest failed images; and the other files of
        the same shards.
    """
    files = [(number, path) for number, path in shard_files(folder) if number < count]
    best: dict[int, ValidShard] = {}
    superseded: list[Path] = []
    for (number, path), digest in zip(files, digests([path for _, path in files]), strict=True):
        shard = Shard(path) if path.name == shard_name(number, digest) else None
        if shard is None or shard.metadata.get("identity") != identity:
            fault = "damaged" if shard is None else "of another run"
            print_log(f"{path} is removed: it is {fault}", "current", logging.WARNING)
            path.unlink()
            continue
        other = best.get(number)
        if other is not None and other.shard.failed <= shard.failed:
            superseded.append(path)
            continue
        if other is not None:
            superseded.append(Path(other.shard.path))
        best[number] = ValidShard(shard, digest)
    return best, superseded


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
