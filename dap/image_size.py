"""Read the size of an image without decoding it."""

from __future__ import annotations

import os
import struct

import mmcv
from PIL import Image

_ORIENTATION = 0x0112  # of EXIF; 5 to 8 are quarter turns
# What image_size raises for a file that is no sound image.
UNREADABLE = (OSError, ValueError, Image.DecompressionBombError)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read the size of an image as mmcv loads it, from its header where that says it.

    An image with EXIF data is decoded unless its orientation is a plain 1 to 4, which leaves the
    size as it is: readers differ in what they make of broken or odd EXIF data.

    Args:
        path: The image file.

    Returns:
        Height and width in pixels.

    Raises:
        OSError: If the file cannot be opened or is no image.
        ValueError: If it had to be decoded and mmcv could not.
    """
    with Image.open(path) as image:
        width, height = image.size
        if _is_upright(image):
            return height, width
    loaded = mmcv.imread(path)
    if loaded is None:
        raise ValueError("not an image that mmcv can decode")
    return loaded.shape[0], loaded.shape[1]


def _is_upright(image: Image.Image) -> bool:
    try:
        # Not image.getexif(), with which a PNG image would be decoded.
        exif = Image.Image.getexif(image)
    except (SyntaxError, struct.error):  # Pillow's words for a broken block of EXIF
        return False
    if not exif:
        return not {"exif", "Raw profile type exif"} & image.info.keys()
    orientation = exif.get(_ORIENTATION)
    return isinstance(orientation, int) and 1 <= orientation <= 4
