"""Class folders of one's own as an mmpretrain dataset, matched to a classifier's classes."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from mmengine.fileio import list_from_file
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.custom import find_folders, get_samples


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
    among the classes of the classifier, so that a part of the classes keeps its labels.

    Args:
        root: Folder with one folder per class.
        num_classes: Number of classes of the classifier.
        folder_names: Names of the class folders in the classifier's label order, if known. If
            not, there must be ``num_classes`` folders, which get the labels in sorted order.
        readable_names: Names for people, label order. Defaults to the folders' names.

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
    ) -> None:
        self.folder_to_idx = _matched_labels(os.fspath(root), num_classes, folder_names)
        names = folder_names or sorted(self.folder_to_idx)
        super().__init__(
            data_root=os.fspath(root), metainfo={"classes": tuple(readable_names or names)}
        )

    def _find_samples(self) -> list[tuple[str, int]]:
        found, _ = find_folders(self.img_prefix)
        own = {name: self.folder_to_idx[name] for name in found}
        samples, empty = get_samples(self.img_prefix, own, self.is_valid_file)
        if not samples:
            raise RuntimeError(
                f"{self.img_prefix}: {len(own)} class folders, but no image in them; expected "
                f"files ending in {', '.join(sorted(self.extensions))}"
            )
        if empty:
            print_log(
                f"{self.img_prefix}: no image in {len(empty)} of {len(own)} class folders, such as "
                f"{min(empty)}",
                "current",
                logging.WARNING,
            )
        return samples


def read_folder_names(path: str) -> list[str]:
    """Read the names of class folders in label order, one a line.

    What follows the first blank is taken for a readable name and left out, so that ImageNet's
    ``LOC_synset_mapping.txt`` serves as it is.
    """
    return [line.split()[0] for line in list_from_file(path) if line.strip()]


def _matched_labels(
    root: str, num_classes: int, folder_names: Sequence[str] | None
) -> dict[str, int]:
    if not os.path.isdir(root):
        raise ValueError(f"images: {root} is no folder; expected a folder with class folders")
    found, _ = find_folders(root)
    cure = (
        "Name the folders of all classes of the classifier in label order, one a line, with "
        "--classes FILE"
    )
    if not found:
        raise ValueError(
            f"images: {root} holds no class folders; expected one folder per class, named like the "
            "classifier's classes, with the images in it: the class of each image must be known"
        )
    if folder_names is None:
        if len(found) != num_classes:
            raise ValueError(
                f"images: {root} holds {len(found)} class folders, the classifier has "
                f"{num_classes} classes, and nothing tells which is which. {cure}"
            )
        return {name: label for label, name in enumerate(sorted(found))}
    if len(folder_names) != num_classes:
        raise ValueError(
            f"images: {len(folder_names)} class folders are named, the classifier has "
            f"{num_classes} classes. {cure}"
        )
    labels = {name: label for label, name in enumerate(folder_names)}
    foreign = sorted(set(found) - labels.keys())
    if foreign:
        raise ValueError(
            f"images: {root} holds {len(foreign)} folders that are no class of the classifier, "
            f"such as {', '.join(foreign[:3])}; its classes are {', '.join(folder_names[:3])}, … "
            f"{cure}, or move other folders away"
        )
    return labels
