"""Reading the images of an mmpretrain dataset, one broken file at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.dataset import ClassBalancedDataset, RepeatDataset
from torch import Tensor
from torch.utils.data import Dataset


class Entry(NamedTuple):
    """One image of the data set, not yet read.

    Attributes:
        path: Where the file is.
        file_name: The path relative to the root of the images, with forward slashes.
        labels: Its classes, ascending, each once, shape (L,).
    """

    path: str
    file_name: str
    labels: np.ndarray


class Sample(NamedTuple):
    """One image of the data set.

    Attributes:
        entry: Which one.
        image: Shape (C, H, W), uint8, BGR, or None if it could not be read.
        error: Why it could not be read, or None.
    """

    entry: Entry
    image: Tensor | None
    error: str | None


class LabelledImages(Dataset):
    """The images of an mmpretrain dataset as files with labels.

    The dataset's own ``LoadImageFromFile``, if it has one, says how files are opened (storage
    backend, decoder); the rest of its pipeline, which may crop, plays no part. EXIF orientation
    is applied, as mmdet does when it trains on the same files.

    Args:
        dataset: An mmpretrain dataset with ``img_path`` and ``gt_label``; repeated and
            class-balanced wrappers are taken off, so that each image comes once.

    Raises:
        ValueError: If the dataset is empty, holds no files, or has no labels.
    """

    def __init__(self, dataset: Any) -> None:
        while isinstance(dataset, RepeatDataset | ClassBalancedDataset):
            dataset = dataset.dataset
        if not hasattr(dataset, "get_data_info") or not hasattr(dataset, "full_init"):
            raise ValueError(
                f"dataset {type(dataset).__name__}: expected an mmpretrain dataset, found one "
                "that hides what it holds. Give the dataset inside"
            )
        dataset.full_init()
        self.dataset = dataset
        if len(dataset) == 0:
            raise ValueError(f"dataset {type(dataset).__name__}: expected images, found none")
        first = dataset.get_data_info(0)
        if "img_path" not in first:
            raise ValueError(
                f"dataset {type(dataset).__name__}: expected image files (img_path), found "
                f"{sorted(first)}. A detector trains on files: write the images to class folders "
                "and pass that folder"
            )
        if "gt_label" not in first:
            raise ValueError(
                f"dataset {type(dataset).__name__}: {first['img_path']} has no label (gt_label). "
                "Pseudo boxes need the class of each image: use the training split, with labels"
            )
        self.loader = _image_loader(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        entry = self.entry(index)
        try:
            image = read_image(entry.path, self.loader)
        except (OSError, ValueError, cv2.error) as error:
            return Sample(entry, None, f"{type(error).__name__}: {error}")
        return Sample(entry, image, None)

    def entry(self, index: int) -> Entry:
        """What the data set knows of an image without opening it."""
        info = self.dataset.get_data_info(index)
        path, root = str(info["img_path"]), self.root
        name = path[len(root) :].lstrip("/\\") if root and path.startswith(root) else path
        labels = np.unique(np.atleast_1d(info["gt_label"]).astype(int))
        return Entry(path, name.replace(os.sep, "/"), labels)

    def entries(self) -> Iterator[Entry]:
        """All images in their order."""
        return (self.entry(index) for index in range(len(self)))

    @property
    def root(self) -> str:
        """The folder that file names are relative to: the dataset's image prefix, or ''."""
        prefix = getattr(self.dataset, "data_prefix", None) or {}
        return str(prefix.get("img_path") or getattr(self.dataset, "data_root", "") or "")


def read_image(path: str, loader: LoadImageFromFile | None = None) -> Tensor:
    """Read an image file of any kind as colour.

    Grey, palette and CMYK files become BGR, 16-bit ones 8-bit, EXIF-rotated ones upright.

    Args:
        path: The file, local or of any storage that MMEngine knows.
        loader: How to open and decode it. Defaults to OpenCV from the local disk.

    Returns:
        The image, BGR, uint8, shape (3, H, W).

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is empty, cut off, or no image.
    """
    loader = loader or LoadImageFromFile()
    data = fileio.get(path, backend_args=loader.backend_args)
    if not data:
        raise ValueError("the file is empty; expected an image")
    _check_complete(data)
    image = mmcv.imfrombytes(data, flag=loader.color_type, backend=loader.imdecode_backend)
    if image is None:
        raise ValueError(f"not an image that {loader.imdecode_backend} can decode")
    if image.ndim == 2:
        image = image[..., None].repeat(3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


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
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1:
        marker = data[at + 1]
        if marker == 0xD9:
            return True
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2  # stuffed or fill byte, restart: inside a scan
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _image_loader(dataset: Any) -> LoadImageFromFile:
    transforms: Sequence[Any] = getattr(getattr(dataset, "pipeline", None), "transforms", ())
    for transform in transforms:
        if isinstance(transform, LoadImageFromFile):
            return transform
    return LoadImageFromFile()
