"""Derive a run with other thresholds or another NMS from a run without NMS."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from dap.cam import NMS_IOU
from dap.cam.boxes import Candidates
from dap.files import locked
from dap.progress import Progress
from dap.store.reader import PseudoBoxStore, store_folder
from dap.store.shard import Shard, exact
from dap.store.statistics import summary_line
from dap.store.writer import StoreWriter

from .records import NOTHING_ABOVE, merged_boxes
from .settings import PseudoBoxSettings


def select_boxes(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    thresholds: Sequence[float] | None = None,
    nms_iou: float | None = NMS_IOU,
) -> dict[str, Any]:
    """Derive a run with other thresholds or another NMS from a run without NMS.

    The store and ``annotations.json`` have the same bytes as if :func:`generate_pseudo_boxes` had
    written them with these settings. ``summary.json`` has the same content, and in addition
    ``derived_from``, the settings of the source. If the process is killed, the next call writes the
    missing shards.

    Args:
        source: Folder of a finished run with ``nms_iou=None``.
        out: Folder to write, created if needed. A finished run of the same classifier, images and
            settings is kept, an unfinished one is continued. Any other run is refused.
        thresholds: Some of the thresholds of the source. Defaults to all of them.
        nms_iou: IoU threshold of the merging NMS in (0, 1]; None for no NMS.

    Returns:
        The content of ``summary.json``.

    Raises:
        ValueError: If the source is no finished run without NMS, is damaged or lacks a threshold,
            a setting is out of range, or ``out`` is the source or holds another run.
        RuntimeError: If another process writes ``out``.
        OSError: If ``out`` cannot be written, or is full; finished shards are kept.
    """
    folder, out = store_folder(source), Path(out)
    if folder.resolve() == out.resolve():
        raise ValueError(f"{out} is the source itself: choose another output folder")
    store = PseudoBoxStore(folder)
    settings = _selected_settings(store, thresholds, nms_iou)
    described = {**store.manifest, "settings": settings.as_json()}
    for key in ("format", "identity", "shards"):
        del described[key]
    writer = StoreWriter(out, described)
    with locked(out / ".lock"):
        missing = writer.begin()
        summary = writer.finished_summary()
        if summary is not None:
            return summary
        _write_selected(store, writer, missing, settings)
        summary = writer.finish(store.manifest["settings"])
    print_log(f"{out}: {summary_line(summary)}", logger="current")
    return summary


def _selected_settings(
    store: PseudoBoxStore, thresholds: Sequence[float] | None, nms_iou: float | None
) -> PseudoBoxSettings:
    """Return the settings of the derived run; the source must have the boxes that they need."""
    source = PseudoBoxSettings.from_store(store)
    if thresholds is None:
        thresholds = store.thresholds
    changes = {"thresholds": thresholds, "nms_iou": nms_iou}
    settings = PseudoBoxSettings(**{**source.as_json(), **changes})
    if source.nms_iou is not None:
        raise ValueError(
            f"{store.folder} was merged by NMS at IoU {source.nms_iou}: the boxes that NMS "
            "removed are not in it. Make a run without NMS to select from (--cfg-options "
            "pseudo_boxes.nms_iou=None)"
        )
    missing = [tau for tau in settings.thresholds if tau not in store.thresholds]
    if missing:
        raise ValueError(
            f"thresholds: {store.folder} has boxes of {store.thresholds}, found {missing}. Choose "
            "among those, or make a run with these"
        )
    return settings


def _write_selected(
    store: PseudoBoxStore, writer: StoreWriter, missing: Sequence[int], settings: PseudoBoxSettings
) -> None:
    """Write the missing shards of the derived run."""
    chosen = [store.thresholds.index(tau) for tau in settings.thresholds]
    images = writer.images_of(missing)
    progress = Progress(images, images)
    for number in missing:
        shard = store.shards[number]
        records = []
        for record in _records(shard, chosen, settings):
            records.append(record)
            progress.step()
        writer.write(number, records, right=shard.right)
    progress.close()


def _records(
    shard: Shard, chosen: Sequence[int], settings: PseudoBoxSettings
) -> Iterator[dict[str, Any]]:
    """Merge the boxes of each image, as :func:`dap.pseudo_boxes.records.image_record` does."""
    heights, widths = (side.tolist() for side in shard.sizes_hw)
    reasons = dict(shard.reasons())
    candidates = _candidates(shard, chosen)
    for row, (height, width) in enumerate(zip(heights, widths, strict=True)):
        record = {"id": int(shard.ids[row]), "file_name": shard.file_name(row)}
        if height:
            record |= {"height": height, "width": width}
            record |= merged_boxes(candidates.get(row, ()), settings)
        if row in reasons or not record["boxes"]:
            record["reason"] = reasons.get(row, NOTHING_ABOVE)
        yield record


def _candidates(shard: Shard, chosen: Sequence[int]) -> dict[int, list[tuple[int, Candidates]]]:
    """Return row → labels with the boxes of the chosen thresholds, in the order of Step 2.

    Boxes of a shard are sorted by decreasing area, those of equal area in the order in which they
    were computed. NMS sorts by area too, so only the order of the thresholds is restored.
    """
    position = np.full(256, -1)
    position[list(chosen)] = np.arange(len(chosen))
    taus = position[shard.thresholds]
    rows = np.repeat(np.arange(len(shard)), np.diff(shard.starts))
    order = np.lexsort((taus, shard.labels, rows))
    order = order[taus[order] >= 0]
    rows, labels, taus = rows[order], shard.labels[order], taus[order]
    boxes = exact(shard.bboxes[order])
    masks = [shard.mask(box) for box in order.tolist()] if shard.has_masks else None
    starts = np.flatnonzero(np.diff([rows, labels], prepend=-1).any(axis=0)).tolist()
    by_row: dict[int, list[tuple[int, Candidates]]] = {}
    for start, end in pairwise([*starts, len(boxes)]):
        label_masks = None if masks is None else masks[start:end]
        candidates = Candidates(boxes[start:end], taus[start:end], label_masks)
        by_row.setdefault(int(rows[start]), []).append((int(labels[start]), candidates))
    return by_row
