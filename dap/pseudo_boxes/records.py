"""From the maps of an image to its record: boxes, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dap.cam import box_candidates, nms_larger_first
from dap.cam.boxes import Candidates, is_constant
from dap.runs.store_run import Computed, Record
from dap.runs.verdict import NO_LABEL
from dap.store.masks import encode_mask
from dap.store.shard import DECIMALS

from .batched_maps import ImageMaps
from .settings import PseudoBoxSettings

# Reasons of images without boxes.
FLAT = "its map is constant"
NOTHING_ABOVE = "no box at these thresholds"


def image_record(image: ImageMaps, settings: PseudoBoxSettings) -> Record:
    """Compute the boxes of an image, or the reason why there are none.

    Returns:
        What :meth:`dap.store.writer.StoreWriter.write` takes, without ``id``.
    """
    name = {"file_name": image.entry.file_name}
    if image.error is not None:
        return {**name, "reason": image.error}
    try:
        merged = image.merged(settings.rule)
    except FloatingPointError as error:
        return {**name, "reason": f"FloatingPointError: {error}"}
    maps = merged.maps.numpy()
    labels = image.entry.labels.tolist()
    grid = merged.cell_size, image.size_hw
    candidates = (
        box_candidates(cam, settings.thresholds, settings.rule, *grid, settings.masks)
        for cam in maps
    )
    record = {
        **name,
        "height": image.size_hw[0],
        "width": image.size_hw[1],
        **merged_boxes(zip(labels, map(rounded, candidates), strict=True), settings),
        "top1": image.top in labels,
    }
    if "masks" in record:
        record["masks"] = [encode_mask(mask.over_image(image.size_hw)) for mask in record["masks"]]
    if not record["boxes"]:
        flat = all(is_constant(cam) for cam in maps)
        record["reason"] = NO_LABEL if not labels else FLAT if flat else NOTHING_ABOVE
    return record


def window_records(images: Sequence[ImageMaps], settings: PseudoBoxSettings) -> list[Computed]:
    """Compute the records of several images."""
    return [Computed(i.entry, i.readable, image_record(i, settings)) for i in images]


def rounded(candidates: Candidates) -> Candidates:
    """Round candidates to the precision of the files, before they are merged.

    Merging boxes that are read from a file then gives the same result as merging new ones. A box
    without width or height after rounding, which can occur at the image edge, is dropped.
    """
    boxes = np.round(candidates.boxes, DECIMALS)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    masks = candidates.masks
    if masks is not None:
        masks = [masks[i] for i in np.flatnonzero(has_area).tolist()]
    return Candidates(boxes[has_area], candidates.thresholds[has_area], masks)


def merged_boxes(
    by_label: Iterable[tuple[int, Candidates]], settings: PseudoBoxSettings
) -> dict[str, Any]:
    """Merge the candidates of an image per class, by non-maximum suppression.

    Args:
        by_label: Labels, ascending, each with its rounded candidates. Of two candidates of equal
            area, the first takes precedence.
        settings: Thresholds, NMS and rule.

    Returns:
        ``boxes``, rows of x1, y1, x2, y2, label and index of the threshold, the largest of each
        label first, and ``masks`` of the same boxes if the candidates have masks.
    """
    boxes: list[list[float]] = []
    masks: list[Any] = []
    for label, (candidates, indices, candidate_masks) in by_label:
        kept = np.arange(len(candidates))
        if len(candidates) > 1:
            kept = nms_larger_first(candidates, settings.nms_iou, settings.rule)[0]
        if candidate_masks is not None:
            masks += [candidate_masks[i] for i in kept.tolist()]
        for box, tau in zip(candidates[kept].tolist(), indices[kept].tolist(), strict=True):
            boxes.append([*box, label, tau])
    return {"boxes": boxes, **({"masks": masks} if masks else {})}
