"""Masks as a store and COCO files hold them: the counts of a run-length encoding."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

_CORNERS = 6  # numbers of the smallest polygon


def encode_mask(mask: np.ndarray) -> str:
    """Encode a mask.

    Args:
        mask: bool, at the size of the image, shape (H, W).

    Returns:
        ``counts`` of COCO's compressed RLE.
    """
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    counts: bytes = encoded["counts"]
    return counts.decode("ascii")


def decode_mask(counts: str, size_hw: tuple[int, int]) -> np.ndarray:
    """Decode what :func:`encode_mask` gives, to bool, shape (H, W)."""
    mask: np.ndarray = coco_mask.decode(segmentation(counts, size_hw))
    return mask.astype(bool)


def segmentation(counts: str, size_hw: tuple[int, int]) -> dict[str, Any]:
    """A mask as COCO's ``segmentation`` has it."""
    return {"size": [int(size_hw[0]), int(size_hw[1])], "counts": counts}


def counts_of(given: Any, size_hw: tuple[int, int]) -> str:
    """Encode a ``segmentation`` of a COCO file: polygons, or RLE, compressed or not.

    Args:
        given: The value.
        size_hw: Height and width of the image in pixels.

    Returns:
        As :func:`encode_mask`.

    Raises:
        ValueError: If it is none of these, or of another size.
    """
    height, width = size_hw
    if isinstance(given, dict):
        if list(given.get("size", ())) != [height, width]:
            raise ValueError(
                f"segmentation: expected size [{height}, {width}], found {given.get('size')}"
            )
        counts = given.get("counts")
        if isinstance(counts, str):
            coco_mask.decode(given)  # counts of another size are refused
            return counts
        if not isinstance(counts, list) or sum(counts) != height * width:
            raise ValueError(f"segmentation: expected counts of {height * width} pixels in all")
        encoded = coco_mask.frPyObjects(given, height, width)
    else:
        usable = isinstance(given, list) and all(
            isinstance(part, list) and len(part) >= _CORNERS and not len(part) % 2 for part in given
        )
        if not given or not usable:
            raise ValueError(
                f"segmentation: expected polygons of x, y, x, y, … with {_CORNERS // 2} corners or "
                f"more, or RLE, found {str(given)[:60]}"
            )
        encoded = coco_mask.merge(coco_mask.frPyObjects(given, height, width))
    text: bytes = encoded["counts"]
    return text.decode("ascii")
