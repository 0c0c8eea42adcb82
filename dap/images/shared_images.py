"""The image list of a run, listed by one process and read by all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dap.files import PARTIAL
from dap.ranks import Ranks

from .image_list import ImageList
from .labelled_images import LabelledImages

CHECKED = 1000  # images whose files are compared between processes


@contextmanager
def shared_images(
    ranks: Ranks, images: LabelledImages | None, dataset: Any, folder: Path
) -> Iterator[LabelledImages]:
    """Share the images that the first process has listed with all processes.

    The first process writes the list to the folder, and the others memory-map it; file names are
    relative to the root of the dataset of each process. The file is removed at the end.

    Args:
        ranks: The processes.
        images: The images in the first process, None in the others.
        dataset: The dataset of this process, which is listed in the first process only.
        folder: Folder of the run.

    Raises:
        ValueError: If the files of a process differ from those of the first process.
        OSError: If the list cannot be written.
    """
    path = folder / f".images{PARTIAL}"
    if ranks.size > 1:
        ranks.on_first_rank(lambda: images.list.save(path) if images else None)
        if images is None:
            images = LabelledImages(dataset, ImageList.load(path))
    if images is None:
        raise ValueError("images: the first process has none; expected the images that it listed")
    _require_same_files(ranks, images)
    try:
        yield images
    finally:
        if ranks.rank == 0:
            path.unlink(missing_ok=True)


def _require_same_files(ranks: Ranks, images: LabelledImages) -> None:
    """Compare existence and size of some files, since nodes may have different copies."""
    count = min(CHECKED, len(images))
    chosen = np.linspace(0, len(images) - 1, count).astype(int).tolist()
    paths = [images.entry(index).path for index in chosen]
    sizes = ranks.gather([_size_of(path) for path in paths]) if ranks.size > 1 else []
    for rank, rank_sizes in enumerate(sizes):
        pairs = enumerate(zip(sizes[0], rank_sizes, strict=True))
        different = [i for i, (size, other) in pairs if size != other]
        if different:
            first = different[0]
            name = images.list.name(chosen[first])
            raise ValueError(
                f"the processes of this run see different images: {len(different)} of {count} that "
                f"were compared differ between rank 0 and rank {rank}, such as {name} "
                f"({_words(sizes[0][first])} in rank 0, {_words(rank_sizes[first])} in "
                f"rank {rank}). Give all processes the same files"
            )


def _size_of(path: str) -> int:
    """Return the bytes of a local file, -1 if it is absent, 0 for a URL."""
    if "://" in path:
        return 0
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _words(size: int) -> str:
    return "absent" if size < 0 else f"{size} bytes"
