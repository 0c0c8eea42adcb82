"""Masks of a store and of COCO files: the counts of a run-length encoding (RLE)."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

_MIN_COORDINATES = 6  # of a polygon: x and y of three corners


def encode_mask(mask: np.ndarray) -> str:
    """Encode a mask.

    Args:
        mask: bool, in the size of the image, shape (H, W).

    Returns:
        ``counts`` of COCO's compressed RLE.
    """
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    counts: bytes = encoded["counts"]
    return counts.decode("ascii")


def decode_mask(counts: str, size_hw: tuple[int, int]) -> np.ndarray:
    """Decode the counts of :func:`encode_mask` to a mask, bool, shape (H, W)."""
    mask: np.ndarray = coco_mask.decode(segmentation(counts, size_hw))
    return mask.astype(bool)


def segmentation(counts: str, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Return a mask as the ``segmentation`` of a COCO annotation."""
    return {"size": [int(size_hw[0]), int(size_hw[1])], "counts": counts}


def counts_of(value: Any, size_hw: tuple[int, int]) -> str:
    """Encode a ``segmentation`` of a COCO file: polygons, or RLE, compressed or not.

    Args:
        value: The ``segmentation``.
        size_hw: Height and width of the image in pixels.

    Returns:
        ``counts`` of COCO's compressed RLE, as :func:`encode_mask` returns them.

    Raises:
        ValueError: If it has another format or another size.
    """
    height, width = size_hw
    if isinstance(value, dict):
        if list(value.get("size", ())) != [height, width]:
            raise ValueError(
                f"segmentation: expected size [{height}, {width}], found {value.get('size')}"
            )
        counts = value.get("counts")
        if isinstance(counts, str):
            coco_mask.decode(value)  # counts of another size are refused
            return counts
        if not isinstance(counts, list) or sum(counts) != height * width:
            raise ValueError(f"segmentation: expected counts of {height * width} pixels in all")
        encoded = coco_mask.frPyObjects(value, height, width)
    else:
        usable = isinstance(value, list) and all(
            isinstance(part, list) and len(part) >= _MIN_COORDINATES and not len(part) % 2
            for part in value
        )
        if not value or not usable:
            raise ValueError(
                "segmentation: expected polygons of x, y, x, y, … with "
                f"{_MIN_COORDINATES // 2} corners or more, or RLE, found {str(value)[:60]}"
            )
        encoded = coco_mask.merge(coco_mask.frPyObjects(value, height, width))
    text: bytes = encoded["counts"]
    return text.decode("ascii")
