"""Read single COCO files and the folders that annotation tools export."""

from __future__ import annotations

import os
from pathlib import Path

from dap.coco_file import CocoFile, read_coco_file

from .detection_data import TRAIN, DetectionSplit, split_name

_CHECKED = 5  # images per file that are searched to find their folder


def read_coco_folder(
    root: Path, images: str | os.PathLike[str] | None = None
) -> dict[str, DetectionSplit]:
    """Read a COCO file, or all COCO files of a folder, see :func:`.read_detection_data`.

    Args:
        root: The file or folder.
        images: Folder of the images. Defaults to a folder near the file that has them.

    Returns:
        Splits by name; a single file is ``'train'`` whatever its name is.

    Raises:
        ValueError: If two files are the same split, no file is a training split, or no folder has
            the images.
    """
    if root.is_file():
        return {TRAIN: _split(root, images)}
    files = [*root.glob("*.json"), *root.glob("*/*.json")]
    named: dict[str, Path] = {}
    for file in sorted(files):
        if name := _name(file):
            if name in named:
                raise ValueError(
                    f"{root}: {named[name]} and {file} both look like the split {name!r}; name "
                    "one of the files instead of the folder"
                )
            named[name] = file
    if not named and len(files) == 1:
        named = {TRAIN: files[0]}
    if TRAIN not in named:
        raise ValueError(
            f"{root}: none of {', '.join(sorted(f.name for f in files)[:6])} is called after the "
            "split train; name the COCO file of the training set"
        )
    return {name: _split(file, images) for name, file in named.items()}


def _name(file: Path) -> str | None:
    """Name of a file's split, from the name of the file or, for Roboflow, of its folder."""
    for word in file.stem.removeprefix("instances_").replace("-", "_").split("_"):
        if name := split_name(word):
            return name
    return split_name(file.parent.name)


def _split(file: Path, images: str | os.PathLike[str] | None) -> DetectionSplit:
    coco = read_coco_file(file)
    folder = os.fspath(images) if images is not None else _image_folder(file, coco)
    return DetectionSplit(os.fspath(file), folder, coco.content, unchanged=not coco.repaired)


def _image_folder(file: Path, coco: CocoFile) -> str:
    names = [image["file_name"] for image in coco.content["images"][:_CHECKED]]
    if all(map(os.path.isabs, names)):
        return ""
    split = file.stem.removeprefix("instances_")
    folders = [
        folder
        for parent in dict.fromkeys((file.parent, file.parent.parent))
        for folder in (parent, parent / "images", parent / split, parent / "images" / split)
    ]
    for folder in folders:
        if all((folder / name).is_file() for name in names):
            return os.fspath(folder)
    raise ValueError(
        f"{file}: its images, such as {names[0]}, are in none of "
        f"{', '.join(map(str, folders))}; name their folder"
    )
