"""Write a COCO file of images without annotations, to predict on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dap.datasets.voc_files import VOC_CLASSES, ImageFinder, split_file
from dap.files import IMAGE_SUFFIXES, files_below, output_file, read_lines, write_coco
from dap.image_size import image_size


def write_unlabelled(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    split: str | None = None,
    classes: Sequence[str] = VOC_CLASSES,
) -> dict[str, Any]:
    """List images with their sizes in a COCO file that has no annotations.

    There are two layouts. With a split, it is that of Pascal VOC. ``Annotations/`` is not read and
    need not exist; file names are relative to ``JPEGImages``::

        root/
        ├── ImageSets/Main/{split}.txt
        └── JPEGImages/2008_000008.jpg …           images of any kind

    Without a split, all image files in ``root`` and its subfolders are listed; file names are
    relative to ``root``.

    Only the header of most images is read, see `image_size`, so truncated files are not detected.

    Args:
        root: Folder of the images, or of VOC.
        out: COCO file to write. Image ids are 1, 2, … in the order of the split or of the names. A
            file with other content is not replaced: predictions that use its ids would belong to
            other images.
        split: Name of the split.
        classes: Category names in the detector's label order; their ids are 1, 2, …

    Returns:
        ``images``: the number of images; ``left_out``: ``file`` and ``reason`` of each unreadable
        image.

    Raises:
        OSError: If the folder or the split does not exist, or ``out`` is a folder or a file with
            other content.
        ValueError: If no image can be read.
    """
    out = output_file(out)
    folder, names = _named_images(Path(root), split)
    images: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    for name, reason in names:
        if reason:
            left_out.append({"file": name, "reason": reason})
            continue
        try:
            height, width = image_size(folder / name)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            left_out.append({"file": name, "reason": f"{type(error).__name__}: {error}"})
            continue
        images.append({"id": len(images) + 1, "file_name": name, "width": width, "height": height})
    if not images:
        first = f", the first {left_out[0]['file']}: {left_out[0]['reason']}" if left_out else ""
        raise ValueError(
            f"{folder}: expected images, found {len(left_out)} files that cannot be read{first}"
        )
    info = {"description": "DAP: images without labels", "left_out": left_out}
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
    write_coco(out, info, categories, map(json.dumps, images), (), once=True)
    return {"images": len(images), "left_out": left_out}


def _named_images(root: Path, split: str | None) -> tuple[Path, list[tuple[str, str]]]:
    """Find the folder of the images, and their names, each with the reason if it is missing."""
    if split is None:
        return root, [(name, "") for name in files_below(root, IMAGE_SUFFIXES)]
    stems = dict.fromkeys(read_lines(split_file(root, split)))
    find = ImageFinder(root / "JPEGImages")
    names = []
    for stem in stems:
        try:
            names.append((find(stem), ""))
        except ValueError as error:
            names.append((stem, str(error)))
    return find.root, names
