"""Read single COCO files and the folders that annotation tools export."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dap.coco_file import CocoFile, read_coco_file

from .detection_data import TRAIN, DetectionSplit, split_name

_LOOKED_AT = 5  # images that show whether a folder is the right one


def read_coco_folder(
    root: Path, images: str | os.PathLike[str] | None = None
) -> dict[str, DetectionSplit]:
    """Read a COCO file, or all of a folder, see :func:`.read_detection_data`.

    Args:
        root: The file or folder.
        images: Folder of the images; by default it is looked for beside the file.

    Returns:
        Splits by their names; a single file is ``'train'`` whatever it is called.

    Raises:
        ValueError: If two files are of the same split, none is known, or no folder has the images.
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
    """Split of a file by its own name or, for Roboflow's, by that of its folder."""
    for word in file.stem.removeprefix("instances_").replace("-", "_").split("_"):
        if name := split_name(word):
            return name
    return split_name(file.parent.name)


def _split(file: Path, images: str | os.PathLike[str] | None) -> DetectionSplit:
    coco = read_coco_file(file)
    folder = os.fspath(images) if images is not None else _image_folder(file, coco)
    return DetectionSplit(os.fspath(file), folder, coco.content, unchanged=not coco.repaired)


def _image_folder(file: Path, coco: CocoFile) -> str:
    names = [image["file_name"] for image in coco.content["images"][:_LOOKED_AT]]
    if all(map(os.path.isabs, names)):
        return ""
    folders = list(_likely_folders(file))
    for folder in folders:
        if all((folder / name).is_file() for name in names):
            return os.fspath(folder)
    raise ValueError(
        f"{file}: its images, such as {names[0]}, are in none of "
        f"{', '.join(map(str, folders))}; name their folder"
    )


def _likely_folders(file: Path) -> Iterator[Path]:
    """Where the images of a file usually are."""
    split = file.stem.removeprefix("instances_")
    for place in dict.fromkeys((file.parent, file.parent.parent)):
        yield from (place, place / "images", place / split, place / "images" / split)
