"""Read the size of an image without decoding it."""

from __future__ import annotations

import os
import struct

import mmcv
from PIL import Image

_ORIENTATION = 0x0112  # EXIF tag; values 5 to 8 swap height and width
# Errors that image_size raises for a file that is no valid image.
UNREADABLE = (OSError, ValueError, Image.DecompressionBombError)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read the size of an image as mmcv loads it, from the header if possible.

    An image with EXIF data is decoded unless its orientation is an integer from 1 to 4, which does
    not change the size: decoders differ in how they interpret invalid EXIF data.

    Args:
        path: The image file.

    Returns:
        Height and width in pixels.

    Raises:
        OSError: If the file cannot be opened or is no image.
        ValueError: If it has to be decoded and mmcv cannot decode it.
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
        # Not image.getexif(), which decodes PNG images.
        exif = Image.Image.getexif(image)
    except (SyntaxError, struct.error):  # raised by Pillow for invalid EXIF data
        return False
    if not exif:
        return not {"exif", "Raw profile type exif"} & image.info.keys()
    orientation = exif.get(_ORIENTATION)
    return isinstance(orientation, int) and 1 <= orientation <= 4
