"""``annotations.json`` and ``summary.json``: what is derived from a store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dap.files import whole_file, write_coco

from .masks import segmentation
from .reader import PseudoBoxStore, identity
from .shard import DECIMALS, NO_THRESHOLD, Shard, exact


def export_coco(store: PseudoBoxStore, path: Path, once: bool = False) -> None:
    """Write the boxes of a store as a COCO file, shard by shard: nothing is held.

    Images that could not be used are left out. Each annotation has the threshold it was found at
    and, where the store has masks, its mask as RLE. ``area`` is that of the box.
    A store that was made of such a file says of itself what that file said.

    Args:
        store: The boxes.
        path: File to write.
        once: Whether a file that is there stays, see :func:`dap.files.whole_file`.
    """
    info = store.manifest.get("info")
    if info is None:
        info = {"description": "DAP pseudo boxes", **identity(store.manifest)}
        del info["shard_size"]
    images = (line for shard in store.shards for line in _image_lines(shard))
    write_coco(path, info, store.categories, images, _annotation_lines(store), once)


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary: the last file of a run, by which it is known as finished."""
    with whole_file(path) as file:
        file.write(json.dumps(summary, indent=2) + "\n")


def _image_lines(shard: Shard) -> Iterator[str]:
    ids = shard.ids.tolist()
    heights, widths = (side.tolist() for side in shard.sizes_hw)
    for row, (number, height, width) in enumerate(zip(ids, heights, widths, strict=True)):
        if height:
            name = json.dumps(shard.file_name(row))
            yield (f'{{"id": {number}, "file_name": {name}, "width": {width}, "height": {height}}}')


def _annotation_lines(store: PseudoBoxStore) -> Iterator[str]:
    number = 0
    category_ids = np.array([category["id"] for category in store.categories], np.int64)
    suffixes = {i: f', "threshold": {tau}}}' for i, tau in enumerate(store.thresholds)}
    suffixes[NO_THRESHOLD] = "}"
    for shard in store.shards:
        masks = _segmentations(shard)
        corners = exact(shard.bboxes)
        sizes = np.round(corners[:, 2:] - corners[:, :2], DECIMALS)
        rows = zip(
            np.repeat(shard.ids, np.diff(shard.starts)).tolist(),
            category_ids[shard.labels].tolist(),
            np.concatenate([corners[:, :2], sizes], axis=1).tolist(),
            np.round(sizes.prod(axis=1), 2).tolist(),
            shard.thresholds.tolist(),
            strict=True,
        )
        for image_id, category_id, bbox, area, tau in rows:
            number += 1
            yield (
                f'{{"id": {number}, "image_id": {image_id}, "category_id": {category_id}, '
                f'"bbox": {bbox}, "area": {area}, "iscrowd": 0{next(masks, "")}{suffixes[tau]}'
            )


def _segmentations(shard: Shard) -> Iterator[str]:
    """The masks of a shard, as part of their annotations; none if it has none."""
    if shard.has_masks:
        heights, widths = (np.repeat(s, np.diff(shard.starts)).tolist() for s in shard.sizes_hw)
        for box, size_hw in enumerate(zip(heights, widths, strict=True)):
            yield f', "segmentation": {json.dumps(segmentation(shard.mask(box), size_hw))}'
