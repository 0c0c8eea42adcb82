"""Class folders of one's own as an mmpretrain dataset, matched to a classifier's classes."""

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

from .folder_labels import match_labels, read_folder_names

__all__ = ["ClassFolders", "find_class_folders", "read_folder_names", "warn_of_files_not_taken"]


class ClassFolders(CustomDataset):
    """Images in one folder per class, of some or all classes of a classifier.

    ::

        root/
        ├── n01440764/
        │   ├── a.JPEG
        │   └── b.JPEG
        └── n01443537/
            └── c.JPEG

    Where mmpretrain's own dataset numbers the folders it finds, this one looks each folder up
    among the classes of the classifier, so that a part of the classes keeps its labels. Files are
    listed as :class:`dap.listing.FileListing` says; what is left out is logged.

    Args:
        root: Folder with one folder per class.
        num_classes: Number of classes of the classifier.
        folder_names: Names of the class folders in the classifier's label order, if known. If
            not, there must be ``num_classes`` folders, which get the labels in sorted order.
        readable_names: Names for people, label order. Defaults to the folders' names.
        lazy_init: Whether to match the folders alone now, and list the images with ``full_init``.

    Attributes:
        folder_to_idx: Name of the folder of each class, there or not → label.

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
        """List the images, one class folder at a time; at the end, log what was left out.

        Folders are in sorted order, and so are the files in each, as in mmpretrain's dataset. The
        names of one class are held at a time.

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
            print_log(
                f"{self._root}: {len(without_class)} images are not taken, since they lie beside "
                f"the class folders and have no class, such as {without_class[0]!r}",
                "current",
                logging.WARNING,
            )
        if len(empty) == len(self._labels):
            others = f"; found others {listing.not_taken}" if listing.not_taken.total else ""
            raise RuntimeError(
                f"{self._root}: {len(empty)} class folders, but no image in them; expected files "
                f"ending in {', '.join(IMAGE_SUFFIXES)}{others}"
            )
        if empty:
            print_log(
                f"{self._root}: no image in {len(empty)} of {len(self._labels)} class folders, "
                f"such as {empty[0]!r}",
                "current",
                logging.WARNING,
            )


def find_class_folders(root: str, kept: Collection[str] = ()) -> list[str]:
    """Find the folders in a folder, sorted; hidden ones and leftovers of systems are none.

    Args:
        root: Where to look.
        kept: Names of folders that count, whatever they are.

    Raises:
        ValueError: If there is no such folder.
    """
    if not os.path.isdir(root):
        raise ValueError(f"images: {root} is no folder; expected a folder with class folders")
    return FileListing(root, ()).top(kept)[0]


def warn_of_files_not_taken(dataset: Any) -> None:
    """Warn of images in class folders that an mmpretrain dataset of a config leaves out.

    mmpretrain's ``CustomDataset`` lists the files with its ``extensions``, which lack ``.webp``
    and others, and no dangling links; it says nothing of the rest. It takes hidden folders for
    classes. Datasets of other kinds, with an annotation file, or not on the local disk are not
    looked at.

    Args:
        dataset: An mmpretrain dataset; repeated and class-balanced wrappers are taken off.
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
    name = type(dataset).__name__
    if listing.not_taken.total:
        print_log(
            f"{root}: {name} of the config leaves out {listing.not_taken.total} files that look "
            f"like images {listing.not_taken}. Name their suffixes with `extensions=` in the "
            f"config, or give the folder with --images; {', '.join(IMAGE_SUFFIXES)} can be read",
            "current",
            logging.WARNING,
        )
    if listing.dangling.total:
        print_log(
            f"{root}: {name} of the config leaves out {listing.dangling.total} dangling links "
            f"{listing.dangling}. Mount or fetch what they lead to",
            "current",
            logging.WARNING,
        )
    hidden = sorted(filter(is_skipped, getattr(dataset, "folder_to_idx", ())))
    if hidden:
        print_log(
            f"{root}: {name} of the config takes {hidden[0]!r} for a class, so that the labels of "
            "folders behind it are shifted. Remove it, or give the folder with --images",
            "current",
            logging.WARNING,
        )
