"""Reading the images of an mmpretrain dataset, one broken file at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import ClassBalancedDataset, RepeatDataset
from torch import Tensor
from torch.utils.data import Dataset

from .class_folders import warn_of_files_not_taken
from .image_files import failure_reason, read_image
from .image_list import ImageList


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
    backend, decoder). The rest of its pipeline, which may crop, is not used. EXIF orientation
    is applied, as mmdet does when it trains on the same files.

    Args:
        dataset: An mmpretrain dataset with ``img_path`` and ``gt_label``, listed or not
            (``lazy_init=True``). Repeated and class-balanced wrappers are taken off, so that each
            image comes once.
        image_list: The images, where another process has listed them: the dataset is then not
            listed here.

    Raises:
        ValueError: If the dataset is empty, holds no files, or has no labels.
    """

    def __init__(self, dataset: Any, image_list: ImageList | None = None) -> None:
        while isinstance(dataset, RepeatDataset | ClassBalancedDataset):
            dataset = dataset.dataset
        if not hasattr(dataset, "get_data_info") or not hasattr(dataset, "full_init"):
            raise ValueError(
                f"dataset {type(dataset).__name__}: expected an mmpretrain dataset, found one "
                "that hides its images. Give the dataset inside"
            )
        self.dataset = dataset
        self.loader = _image_loader(dataset)
        self.list = ImageList.of(self._listed()) if image_list is None else image_list
        if len(self.list) == 0:
            raise ValueError(f"dataset {type(dataset).__name__}: expected images, found none")

    def __len__(self) -> int:
        return len(self.list)

    def __getitem__(self, index: int) -> Sample:
        entry = self.entry(index)
        try:
            image = read_image(entry.path, self.loader)
        except (OSError, ValueError, MemoryError) as error:
            return Sample(entry, None, failure_reason(error))
        return Sample(entry, image, None)

    def entry(self, index: int) -> Entry:
        """Path, name and labels of an image, without opening it."""
        name = self.list.name(index)
        path = name if _is_complete(name) or not self.root else os.path.join(self.root, name)
        return Entry(path, name, self.list.labels_of(index))

    def entries(self) -> Iterator[Entry]:
        """All images in their order."""
        return (self.entry(index) for index in range(len(self)))

    @property
    def root(self) -> str:
        """The folder that file names are relative to: the dataset's image prefix, or ''."""
        prefix = getattr(self.dataset, "data_prefix", None) or {}
        return str(prefix.get("img_path") or getattr(self.dataset, "data_root", "") or "")

    def _listed(self) -> Iterator[tuple[str, int | np.ndarray]]:
        """Name and labels of all images; nothing is held per image where the dataset allows it."""
        if hasattr(self.dataset, "samples") and hasattr(self.dataset, "folder_to_idx"):
            yield from self.dataset.samples()
            return
        try:
            self.dataset.full_init()
        except AssertionError as error:  # mmpretrain's word for a folder that does not fit
            raise ValueError(f"dataset {type(self.dataset).__name__}: {error}") from error
        warn_of_files_not_taken(self.dataset)
        root = self.root
        for index in range(len(self.dataset)):
            info = self.dataset.get_data_info(index)
            if index == 0:
                _require_files_and_labels(info, type(self.dataset).__name__)
            label = info["gt_label"]
            if not isinstance(label, int):  # np.unique alone takes longer than all the rest
                label = np.unique(np.atleast_1d(label).astype(np.int64))
            yield _relative_name(str(info["img_path"]), root), label


def _is_complete(name: str) -> bool:
    """Whether a name needs no root: an absolute path or an address."""
    return os.path.isabs(name) or "://" in name


def _relative_name(path: str, root: str) -> str:
    """Path of an image relative to the root, with forward slashes.

    A path outside of the root becomes absolute, so that the two can be told apart.
    """
    if root and path.startswith(root):
        name = path[len(root) :].lstrip("/\\")
    elif root and not _is_complete(path):
        name = os.path.abspath(path)
    else:
        name = path
    return name.replace(os.sep, "/")


def _require_files_and_labels(info: dict[str, Any], dataset: str) -> None:
    """Refuse a dataset without files or without labels, by its first image."""
    if "img_path" not in info:
        raise ValueError(
            f"dataset {dataset}: expected image files (img_path), found {sorted(info)}. A detector "
            "trains on files: write the images to class folders and pass that folder"
        )
    if "gt_label" not in info:
        raise ValueError(
            f"dataset {dataset}: {info['img_path']} has no label (gt_label). Pseudo boxes need the "
            "class of each image: use the training split, with labels"
        )


def _image_loader(dataset: Any) -> LoadImageFromFile:
    transforms: Sequence[Any] = getattr(getattr(dataset, "pipeline", None), "transforms", ())
    for transform in transforms:
        if isinstance(transform, LoadImageFromFile):
            return transform
    return LoadImageFromFile()
