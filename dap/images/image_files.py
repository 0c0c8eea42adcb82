"""Reading an image file of any kind as colour, and reasons why one cannot be read."""

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

MAX_PIXELS = 2**27  # 134 million; reading an image of this size takes 800 MB
# Prefix of reasons that are not caused by the image, which is then tried again.
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
    """Return why an image could not be read; a temporary reason begins with ``TEMPORARY``."""
    passing = isinstance(error, MemoryError) or getattr(error, "errno", None) in _PASSING_ERRNOS
    mark = TEMPORARY if passing else ""
    return f"{mark}{type(error).__name__}: {error}"


def read_image(path: str, loader: LoadImageFromFile | None = None) -> Tensor:
    """Read an image file of any kind as colour.

    Grey, palette and CMYK images are converted to BGR, 16-bit images to 8 bit. EXIF orientation is
    applied. Of several frames, the first is read.

    Args:
        path: The file, local or in any storage that MMEngine supports.
        loader: Opens and decodes the file. Defaults to OpenCV and the local disk.

    Returns:
        The image, BGR, uint8, shape (3, H, W).

    Raises:
        OSError: If the file cannot be opened, or is a dangling link.
        ValueError: If the file is empty, cut off, no image, or has more than ``MAX_PIXELS`` pixels.
        MemoryError: If there is too little memory.
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
    """Refuse an image whose size is not the one for which boxes were stored.

    Args:
        image: The image, shape (C, H, W).
        size_hw: Stored height and width in pixels; zeros for any.

    Raises:
        ValueError: If the size is another one.
    """
    actual_hw = (image.shape[1], image.shape[2])
    if all(size_hw) and actual_hw != tuple(size_hw):
        raise ValueError(
            f"it has {actual_hw[1]} x {actual_hw[0]} pixels, the boxes are of an image of "
            f"{size_hw[1]} x {size_hw[0]}. Give the folder of the images that the boxes were made "
            "of"
        )


def _check_complete(data: bytes) -> None:
    """Refuse a JPEG or PNG file whose end is missing, which decoders would fill with grey."""
    if data.startswith(b"\xff\xd8"):
        complete = _jpeg_ends(data)
    elif data.startswith(b"\x89PNG"):
        complete = b"IEND" in data
    else:
        complete = True
    if not complete:
        raise ValueError(f"the file is cut off after {len(data)} bytes; its end is missing")


def _jpeg_ends(data: bytes) -> bool:
    """Whether the segments of a JPEG file end with the end marker; bytes after it are ignored."""
    position = 2
    while marker := JPEG_MARKER.search(data, position):
        position = marker.end()
        if data[position - 1] == 0xD9:
            return True
        position += int.from_bytes(data[position : position + 2], "big")
    return False


def _check_size(data: bytes) -> None:
    """Refuse an image that would take too much memory, by the size in its header."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except Exception:  # noqa: BLE001 - `_decode` raises an error if the file is damaged
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
    # Decoders raise any error for damaged files: PIL raises TypeError and AttributeError for EXIF.
    except Exception as error:
        raise ValueError(f"{backend} cannot decode it: {type(error).__name__}: {error}") from error
    if image is None:
        start = repr(data[:16])[1:]
        raise ValueError(f"not an image that {backend} can decode; it starts with {start}")
    return image


@contextmanager
def _without_limit_of_pil() -> Iterator[None]:
    """Disable the limit of pixels of PIL, since ``MAX_PIXELS`` is the limit here."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _as_tensor(image: np.ndarray) -> Tensor:
    """Convert a decoded image, shape (H, W) or (H, W, C), to shape (3, H, W)."""
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2:] == (1,):
        image = image.repeat(3, axis=2)
    if image.dtype != np.uint8 or image.shape[2:] != (3,):
        raise ValueError(
            f"decoded to {image.dtype} of shape {image.shape}; expected uint8 of shape (H, W, 3)"
        )
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
