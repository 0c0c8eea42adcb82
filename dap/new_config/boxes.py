"""The boxes that a detector is pre-trained on: a store, or a COCO file to convert to one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from dap.datasets.coco_folder import read_coco_folder
from dap.pseudo_boxes import PseudoBoxStore
from dap.store.convert import coco_to_store
from dap.store.reader import MANIFEST


class Boxes(NamedTuple):
    """A store for ``dap.PseudoBoxDataset``.

    Attributes:
        manifest: ``manifest.json`` of the store.
        images: Folder of the images, ending with a slash.
        classes: Number of categories.
        size: Number of images.
        has_masks: Whether each box has a mask.
    """

    manifest: str
    images: str
    classes: int
    size: int
    has_masks: bool


def find_boxes(source: str, images: str | None, out: Path) -> Boxes:
    """Open a store of pseudo boxes, or make one from a COCO file.

    Args:
        source: Folder of a store, its ``manifest.json``, or a COCO file.
        images: Folder of the images. Defaults to the one that the store was made from, or to one
            near the COCO file.
        out: Folder for the store that is made from a COCO file.

    Raises:
        OSError: If a file is missing.
        ValueError: If ``source`` is neither a store nor a COCO file, or the images are not found.
    """
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(
            f"{source} does not exist; expected a folder that tools/generate_pseudo_boxes.py has "
            "written, or a COCO file of boxes"
        )
    if path.is_file() and path.name != MANIFEST:
        images = images or read_coco_folder(path)["train"].images
        path = out / f"boxes_{path.stem}"
        coco_to_store(source, path)
    store = PseudoBoxStore(path)
    folder = images if images is not None else store.manifest["image_list"]["root"]
    _check_images(store, folder)
    manifest = os.path.join(os.fspath(store.folder), MANIFEST)
    images = os.path.join(folder, "")
    return Boxes(manifest, images, len(store.categories), len(store), store.has_masks)


def _check_images(store: PseudoBoxStore, folder: str) -> None:
    shard, row = store.locate(0)
    first = Path(folder, shard.file_name(row))
    if not first.is_file():
        raise ValueError(
            f"{store.folder}: its first image, {first}, does not exist; give the folder of "
            "the images (--images)"
        )
