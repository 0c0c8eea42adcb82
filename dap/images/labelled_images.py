"""The images of an mmpretrain dataset; a file that cannot be read gives a sample with an error."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
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
    """An image of the data set before it is read.

    Attributes:
        path: Path of the file.
        file_name: Path relative to the root of the images, with forward slashes.
        labels: Distinct labels in ascending order, shape (L,).
    """

    path: str
    file_name: str
    labels: np.ndarray


class Sample(NamedTuple):
    """An image of the data set after it is read.

    Attributes:
        entry: Path, file name and labels.
        image: BGR, uint8, shape (C, H, W), or None if the file could not be read.
        error: Why the file could not be read, or None.
    """

    entry: Entry
    image: Tensor | None
    error: str | None


class LabelledImages(Dataset):
    """The images of an mmpretrain dataset as files with labels.

    Files are opened by the ``LoadImageFromFile`` of the dataset (storage backend, decoder), if it
    has one. The rest of its pipeline, which may crop, is not used. EXIF orientation is applied, as
    mmdet does when it trains with the same files.

    Args:
        dataset: An mmpretrain dataset with ``img_path`` and ``gt_label``, listed or not
            (``lazy_init=True``). Repeated and class-balanced wrappers are removed, so that each
            image occurs once.
        image_list: The images, if another process has listed them. The dataset is then not listed.

    Raises:
        ValueError: If the dataset is empty, has no files, or has no labels.
    """

    def __init__(self, dataset: Any, image_list: ImageList | None = None) -> None:
        while isinstance(dataset, RepeatDataset | ClassBalancedDataset):
            dataset = dataset.dataset
        self.dataset = dataset
        self.loader = _image_loader(dataset)
        self.list = ImageList.of(self._listed()) if image_list is None else image_list
        if len(self.list) == 0:
            raise ValueError(f"dataset {type(dataset).__name__}: expected images, found none")

    @classmethod
    def of_files(cls, root: str, files: Iterable[tuple[str, int | np.ndarray]]) -> LabelledImages:
        """Create from files in a folder, see :meth:`ImageList.of`, instead of a dataset."""
        return cls(SimpleNamespace(data_root=root), ImageList.of(files))

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
        """Return path, file name and labels of an image, without opening it."""
        name = self.list.name(index)
        path = name if _is_complete(name) or not self.root else os.path.join(self.root, name)
        return Entry(path, name, self.list.labels_of(index))

    def entries(self) -> Iterator[Entry]:
        """Iterate over all images in order."""
        return (self.entry(index) for index in range(len(self)))

    @property
    def root(self) -> str:
        """Folder that file names are relative to: the image prefix of the dataset, or ''."""
        prefix = getattr(self.dataset, "data_prefix", None) or {}
        return str(prefix.get("img_path") or getattr(self.dataset, "data_root", "") or "")

    def _listed(self) -> Iterator[tuple[str, int | np.ndarray]]:
        """Iterate over file names and labels, without a list in memory if the dataset allows it."""
        if hasattr(self.dataset, "samples") and hasattr(self.dataset, "folder_to_idx"):
            yield from self.dataset.samples()
            return
        name = type(self.dataset).__name__
        if not hasattr(self.dataset, "get_data_info") or not hasattr(self.dataset, "full_init"):
            raise ValueError(
                f"dataset {name}: expected an mmpretrain dataset, found one that hides its images. "
                "Give the dataset inside"
            )
        try:
            self.dataset.full_init()
        except AssertionError as error:  # by which mmpretrain refuses a folder
            raise ValueError(f"dataset {name}: {error}") from error
        warn_of_files_not_taken(self.dataset)
        root = self.root
        for index in range(len(self.dataset)):
            info = self.dataset.get_data_info(index)
            if index == 0:
                _require_files_and_labels(info, name)
            label = info["gt_label"]
            if not isinstance(label, int):  # np.unique takes longer than the rest of the loop
                label = np.unique(np.atleast_1d(label).astype(np.int64))
            yield _relative_name(str(info["img_path"]), root), label


def _is_complete(name: str) -> bool:
    """Whether a name is an absolute path or a URL, which needs no root."""
    return os.path.isabs(name) or "://" in name


def _relative_name(path: str, root: str) -> str:
    """Return the path of an image relative to the root, with forward slashes.

    A path outside of the root becomes absolute, so that it is not mistaken for a relative one.
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
