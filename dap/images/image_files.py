"""Reading one image file of any kind as colour, or saying why it cannot be read."""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import mmcv
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from PIL import Image
from torch import Tensor

MAX_PIXELS = 2**27  # a picture of so many takes 800 MB while it is read: 134 million
# Begins the reason of a failure that is not the image's: the image is tried again.
TEMPORARY = "temporary: "
_PASSING_ERRNOS = frozenset(
    (
        errno.EAGAIN, errno.EBUSY, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EIO,
        errno.EMFILE, errno.ENETDOWN, errno.ENETUNREACH, errno.ENFILE, errno.ENOMEM, errno.ENOTCONN,
        errno.ESTALE, errno.ETIMEDOUT,
    )
)  # fmt: skip
# A marker of a JPEG file. In a scan, FF 00 is a byte of data and FF D0 to FF D7 are restarts.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd8\xff]")


def failure_reason(error: Exception) -> str:
    """Why an image could not be read; marked where it may be possible at another time."""
    passing = isinstance(error, MemoryError) or getattr(error, "errno", None) in _PASSING_ERRNOS
    mark = TEMPORARY if passing else ""
    return f"{mark}{type(error).__name__}: {error}"


def read_image(path: str, loader: LoadImageFromFile | None = None) -> Tensor:
    """Read an image file of any kind as colour.

    Grey, palette and CMYK files become BGR, 16-bit ones 8-bit, EXIF-rotated ones upright; of
    several frames, the first is read.

    Args:
        path: The file, local or of any storage that MMEngine knows.
        loader: How to open and decode it. Defaults to OpenCV from the local disk.

    Returns:
        The image, BGR, uint8, shape (3, H, W).

    Raises:
        OSError: If the file cannot be opened, or is a dangling link.
        ValueError: If it is empty, cut off, no image, or of more than ``MAX_PIXELS`` pixels.
        MemoryError: If there is too little memory for it.
    """
    loader = loader or LoadImageFromFile()
    if os.path.islink(path) and not os.path.exists(path):
        raise FileNotFoundError(
            f"a dangling link to {os.readlink(path)}; mount or fetch what it leads to"
        )
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise ValueError("no regular file; a pipe or a device may never end")
    data = fileio.get(path, backend_args=loader.backend_args)
    if not data:
        raise ValueError("the file is empty; expected an image")
    _check_complete(data)
    with _without_limit_of_pil():
        _check_size(data)
        return _as_tensor(_decode(data, loader))


def check_size(image: Tensor, size_hw: tuple[int, int]) -> None:
    """Refuse an image of another size than the one whose boxes are known.

    Args:
        image: Shape (C, H, W).
        size_hw: Height and width in pixels that it should have; zeros for any.

    Raises:
        ValueError: If it has another.
    """
    actual_hw = (image.shape[1], image.shape[2])
    if all(size_hw) and actual_hw != tuple(size_hw):
        raise ValueError(
            f"it has {actual_hw[1]} x {actual_hw[0]} pixels, the boxes are of an image of "
            f"{size_hw[1]} x {size_hw[0]}. Give the folder of the images that the boxes were made "
            "of"
        )


def _check_complete(data: bytes) -> None:
    """Refuse a JPEG or PNG file whose end is missing: decoders fill the rest with grey."""
    if data.startswith(b"\xff\xd8"):
        complete = _jpeg_ends(data)
    elif data.startswith(b"\x89PNG"):
        complete = b"IEND" in data
    else:
        complete = True
    if not complete:
        raise ValueError(f"the file is cut off after {len(data)} bytes; its end is missing")


def _jpeg_ends(data: bytes) -> bool:
    """Walk the segments of a JPEG file to its end marker; what follows that is not looked at."""
    at = 2
    while marker := JPEG_MARKER.search(data, at):
        at = marker.end()
        if data[at - 1] == 0xD9:
            return True
        at += int.from_bytes(data[at : at + 2], "big")
    return False


def _check_size(data: bytes) -> None:
    """Refuse an image that would take too much memory, by its header."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except Exception:  # noqa: BLE001 - as in `_decode`, which has the last word
        return
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{width} x {height} pixels, more than {MAX_PIXELS}: it is left out so that memory "
            "lasts. Make it smaller"
        )


def _decode(data: bytes, loader: LoadImageFromFile) -> np.ndarray:
    backend = loader.imdecode_backend
    try:
        image = mmcv.imfrombytes(data, flag=loader.color_type, backend=backend)
    # Damaged files make a decoder raise anything: PIL raises TypeError and AttributeError of EXIF.
    except Exception as error:
        raise ValueError(f"{backend} cannot decode it: {type(error).__name__}: {error}") from error
    if image is None:
        start = repr(data[:16])[1:]
        raise ValueError(f"not an image that {backend} can decode; it starts with {start}")
    return image


@contextmanager
def _without_limit_of_pil() -> Iterator[None]:
    """Keep PIL from warning of or refusing many pixels: ``MAX_PIXELS`` is the limit here."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _as_tensor(image: np.ndarray) -> Tensor:
    """Turn what a decoder returns, shape (H, W) or (H, W, C), into shape (3, H, W)."""
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2:] == (1,):
        image = image.repeat(3, axis=2)
    if image.dtype != np.uint8 or image.shape[2:] != (3,):
        raise ValueError(
            f"decoded to {image.dtype} of shape {image.shape}; expected uint8 of shape (H, W, 3)"
        )
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
