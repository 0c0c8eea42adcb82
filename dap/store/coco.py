"""Write a store as a COCO file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dap.files import write_coco

from .masks import segmentation
from .reader import PseudoBoxStore, identity
from .shard import DECIMALS, NO_THRESHOLD, Shard, exact


def export_coco(store: PseudoBoxStore, path: Path, once: bool = False) -> None:
    """Write the boxes of a store as a COCO file, with one shard in memory at a time.

    Images that could not be used are left out. Each annotation has the threshold at which the box
    was computed and, if the store has masks, its mask as RLE. ``area`` is the area of the box.
    ``info`` describes the run; for a store that was converted from such a file, it is the
    ``info`` of that file.

    Args:
        store: The boxes.
        path: File to write.
        once: Whether an existing file is kept, see :func:`dap.files.whole_file`.
    """
    info = store.manifest.get("info")
    if info is None:
        info = {"description": "DAP pseudo boxes", **identity(store.manifest)}
        del info["shard_size"]
    images = (line for shard in store.shards for line in _image_lines(shard))
    write_coco(path, info, store.categories, images, _annotation_lines(store), once)


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
    """Iterate over the masks of a shard as JSON of their annotations; empty without masks."""
    if shard.has_masks:
        heights, widths = (np.repeat(s, np.diff(shard.starts)).tolist() for s in shard.sizes_hw)
        for box, size_hw in enumerate(zip(heights, widths, strict=True)):
            yield f', "segmentation": {json.dumps(segmentation(shard.mask(box), size_hw))}'
