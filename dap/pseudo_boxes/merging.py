"""Turn candidates into boxes: rounding and non-maximum suppression."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from dap.cam import nms_larger_first
from dap.cam.boxes import Candidates
from dap.store.shard import DECIMALS

from .settings import PseudoBoxSettings

NO_LABEL = "it has no class"
FLAT = "its map is constant"
NOTHING_ABOVE = "no box at these thresholds"


def rounded(candidates: Candidates) -> Candidates:
    """Round candidates to the precision of the files, before they are merged.

    What is made of the boxes in a file then equals what is made of those just found. A box that
    is left without width or height, a sliver at the edge of the image, is dropped.
    """
    boxes = np.round(candidates.boxes, DECIMALS)
    extended = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    masks = candidates.masks
    if masks is not None:
        masks = [masks[i] for i in np.flatnonzero(extended).tolist()]
    return Candidates(boxes[extended], candidates.thresholds[extended], masks)


def merged_boxes(
    by_label: Iterable[tuple[int, Candidates]], settings: PseudoBoxSettings
) -> dict[str, Any]:
    """Merge the candidates of one image, class by class.

    Args:
        by_label: Per label, ascending, its rounded candidates; of two as large as each other the
            first wins.
        settings: Thresholds, NMS and rule.

    Returns:
        ``boxes``, rows of x1, y1, x2, y2, label and index of the threshold, larger ones first in
        a label, and ``masks`` of the same boxes, if the candidates have any.
    """
    boxes: list[list[float]] = []
    masks: list[Any] = []
    for label, (candidates, indices, own_masks) in by_label:
        kept = _merged(candidates, settings)
        if own_masks is not None:
            masks += [own_masks[i] for i in kept]
        for box, tau in zip(candidates[kept].tolist(), indices[kept].tolist(), strict=True):
            boxes.append([*box, label, tau])
    return {"boxes": boxes, **({"masks": masks} if masks else {})}


def _merged(boxes: np.ndarray, settings: PseudoBoxSettings) -> np.ndarray:
    """Indices of the boxes that non-maximum suppression keeps, largest first."""
    if len(boxes) < 2:
        return np.arange(len(boxes))
    return nms_larger_first(boxes, settings.nms_iou, settings.rule)[0]
