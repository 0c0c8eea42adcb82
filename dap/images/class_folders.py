"""Class folders as an mmpretrain dataset, matched to the classes of a classifier."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from mmengine.dataset import ClassBalancedDataset, RepeatDataset
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset

from dap.files import IMAGE_SUFFIXES
from dap.listing import FileListing, is_skipped

from .folder_labels import match_labels


class ClassFolders(CustomDataset):
    """Images in one folder per class, of some or all classes of a classifier.

    ::

        root/
        ├── n01440764/
        │   ├── a.JPEG
        │   └── b.JPEG
        └── n01443537/
            └── c.JPEG

    mmpretrain's ``CustomDataset`` numbers the existing folders. This dataset looks up each folder
    among the classes of the classifier, so labels are correct if only some have folders. Files are
    listed as described in :class:`dap.listing.FileListing`; what is left out is logged.

    Args:
        root: Folder with one folder per class.
        num_classes: Number of classes of the classifier.
        folder_names: Names of the class folders in the label order of the classifier, if known.
            Otherwise there must be ``num_classes`` folders, which get labels in sorted order.
        readable_names: Readable class names in label order. Defaults to the folder names.
        lazy_init: Whether to only match the folders now, and to list the images in ``full_init``.

    Attributes:
        folder_to_idx: Folder name of each class → label, whether or not the folder exists.

    Raises:
        ValueError: If there are no class folders, or they do not match the classifier.
        RuntimeError: If the folders hold no images.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        num_classes: int,
        folder_names: Sequence[str] | None = None,
        readable_names: Sequence[str] | None = None,
        lazy_init: bool = False,
    ) -> None:
        self._root = os.fspath(root)
        folders = find_class_folders(self._root, folder_names or ())
        self._labels = match_labels(self._root, folders, num_classes, folder_names, readable_names)
        names = folder_names or sorted(folders)
        self.folder_to_idx = {name: label for label, name in enumerate(names)}
        super().__init__(
            data_root=self._root,
            metainfo={"classes": tuple(readable_names or names)},
            extensions=IMAGE_SUFFIXES,
            lazy_init=lazy_init,
        )

    def samples(self) -> Iterator[tuple[str, int]]:
        """Iterate over the images, with the names of one class in memory at a time.

        Folders, and the files in each, are in sorted order, as in the dataset of mmpretrain. Files
        that are left out are logged at the end.

        Yields:
            Path relative to the root, with forward slashes, and label.

        Raises:
            OSError: If a folder cannot be listed.
            RuntimeError: If there is no image.
        """
        listing = FileListing(self._root, IMAGE_SUFFIXES, IMAGE_SUFFIXES)
        _, without_class = listing.top(kept=self._labels)
        empty = []
        for folder, label in sorted(self._labels.items()):
            names = listing.files(folder)
            if not names:
                empty.append(folder)
            for name in names:
                yield name, label
        self._log(listing, without_class, empty)

    def _find_samples(self) -> list[tuple[str, int]]:
        return list(self.samples())

    def _log(self, listing: FileListing, without_class: list[str], empty: list[str]) -> None:
        listing.log()
        if without_class:
            _warn(
                f"{self._root}: images that lie beside the class folders, have no class, and are "
                f"not taken: {len(without_class)}, such as {without_class[0]!r}"
            )
        if len(empty) == len(self._labels):
            others = f"; found others {listing.not_taken}" if listing.not_taken.total else ""
            raise RuntimeError(
                f"{self._root}: {len(empty)} class folders, but no image in them; expected files "
                f"ending in {', '.join(IMAGE_SUFFIXES)}{others}"
            )
        if empty:
            _warn(
                f"{self._root}: no image in {len(empty)} of {len(self._labels)} class folders, "
                f"such as {empty[0]!r}"
            )


def find_class_folders(root: str, kept: Collection[str] = ()) -> list[str]:
    """List the class folders in a folder, sorted, without hidden folders and system folders.

    Args:
        root: The folder.
        kept: Names of folders that are listed in any case.

    Raises:
        ValueError: If ``root`` does not exist.
    """
    if not os.path.isdir(root):
        raise ValueError(f"images: {root} is no folder; expected a folder with class folders")
    return FileListing(root, ()).top(kept)[0]


def warn_of_files_not_taken(dataset: Any) -> None:
    """Warn of images in class folders that an mmpretrain dataset of a config leaves out.

    ``CustomDataset`` of mmpretrain silently leaves out dangling links and files without one of its
    ``extensions``, which lack ``.webp`` and others. It treats hidden folders as classes. Datasets
    of other types, with an annotation file, or not on the local disk are not checked.

    Args:
        dataset: An mmpretrain dataset, possibly repeated or class-balanced.
    """
    while isinstance(dataset, RepeatDataset | ClassBalancedDataset):
        dataset = dataset.dataset
    if not isinstance(dataset, CustomDataset) or isinstance(dataset, ClassFolders):
        return
    root = dataset.img_prefix
    if dataset.ann_file or not os.path.isdir(root):
        return
    listing = FileListing(root, dataset.extensions, IMAGE_SUFFIXES)
    for _ in listing.walk():
        pass
    start = f"{root}: {type(dataset).__name__} of the config"
    if listing.not_taken.total:
        _warn(
            f"{start} leaves out files that look like images: {listing.not_taken.total} "
            f"{listing.not_taken}. Name their suffixes with `extensions=` in the config, or give "
            f"the folder with --images; {', '.join(IMAGE_SUFFIXES)} can be read"
        )
    if listing.dangling.total:
        _warn(
            f"{start} leaves out dangling links: {listing.dangling.total} {listing.dangling}. "
            "Mount or fetch what they lead to"
        )
    hidden = sorted(filter(is_skipped, getattr(dataset, "folder_to_idx", ())))
    if hidden:
        _warn(
            f"{start} takes {hidden[0]!r} for a class, so that the labels of folders behind it are "
            "shifted. Remove it, or give the folder with --images"
        )


def _warn(text: str) -> None:
    print_log(text, "current", logging.WARNING)
