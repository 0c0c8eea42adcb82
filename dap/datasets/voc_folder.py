"""Folders of VOC-style XML files in the layouts of VOC, CVAT, Label Studio and Roboflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dap.files import read_bytes, read_lines

from .detection_data import TEST, TRAIN, VAL, DetectionSplit, coco_content, split_name
from .voc_files import ImageFinder, VocAnnotation, parse_voc_file

_IMAGE_FOLDERS = tuple(map(Path, ("JPEGImages", "images", "img", ".")))


def read_voc_folder(root: Path) -> dict[str, DetectionSplit]:
    """Read a folder of VOC-style XML files, see :func:`.read_detection_data`.

    Boxes are those of mmdet's ``VOCDataset``: xmin - 1, ymin - 1, xmax - xmin, ymax - ymin.
    Difficult objects get ``iscrowd`` 1, which mmdet ignores in training. Categories are all names
    that occur in any split, sorted. If there are lists ``trainval`` and ``test``, they are
    ``'train'`` and ``'val'``, as VOC is commonly used.

    Args:
        root: The folder.

    Raises:
        FileNotFoundError: If a list names an XML file that does not exist.
        ValueError: If a file is malformed, or there is no training split.
    """
    files = _splits(root)
    if not files.get(TRAIN):
        raise ValueError(
            f"{root}: no XML files of a training set; expected ImageSets/Main/train.txt or "
            "trainval.txt, a folder train, or XML files alone"
        )
    parsed = {
        name: [(xml, parse_voc_file(read_bytes(xml), xml)) for xml in xmls]
        for name, xmls in files.items()
    }
    names = {o.name for items in parsed.values() for _, image in items for o in image.objects}
    return {name: _split(root, items, sorted(names)) for name, items in parsed.items()}


def _splits(root: Path) -> dict[str, list[Path]]:
    """XML files per split."""
    annotations = root / "Annotations"
    lists = root / "ImageSets" / "Main"
    if lists.is_dir():
        named = _lists(lists)
        return {
            name: [annotations / f"{line.split()[0]}.xml" for line in read_lines(file)]
            for name, file in named.items()
        }
    if annotations.is_dir():
        return {TRAIN: sorted(annotations.rglob("*.xml"))}
    folders = {split_name(path.name): path for path in root.iterdir() if path.is_dir()}
    splits = {name: sorted(path.rglob("*.xml")) for name, path in folders.items() if name}
    return {name: files for name, files in splits.items() if files} or {
        TRAIN: sorted(root.rglob("*.xml"))
    }


def _lists(folder: Path) -> dict[str, Path]:
    """List file per split."""
    lists = {path.stem: path for path in sorted(folder.glob("*.txt"))}
    if ("trainval" in lists and "train" not in lists) or {"trainval", "test"} <= lists.keys():
        named = {TRAIN: "trainval", VAL: "test"}
    else:
        named = {TRAIN: "train", VAL: "val", TEST: "test"}
        if "train" not in lists and len(lists) == 1:
            named = {TRAIN: next(iter(lists))}
    return {name: lists[stem] for name, stem in named.items() if stem in lists}


def _split(
    root: Path, items: Sequence[tuple[Path, VocAnnotation]], classes: Sequence[str]
) -> DetectionSplit:
    images, objects, left_out = [], [], []
    find_image = ImageFinder(root)
    for xml, annotation in items:
        image = _image(find_image, xml)
        if image is None:
            reason = "no image of this name is beside it or in JPEGImages or images"
            left_out.append({"kind": "images missing", "file": str(xml), "reason": reason})
            continue
        images.append((image, (annotation.height, annotation.width)))
        objects.append([item.as_coco() for item in annotation.objects])
    if not images:
        raise ValueError(
            f"{root}: none of {len(items)} XML files has an image; expected images in "
            "JPEGImages or images, or beside the XML files, of the same names"
        )
    content = coco_content(classes, images, objects)
    return DetectionSplit(str(root), str(root), content, left_out=left_out)


def _image(find: ImageFinder, xml: Path) -> str | None:
    """Find the image of an XML file by the name of the file; relative to the root."""
    folder = xml.parent.relative_to(find.root)
    folders = [folder]
    if folder.parts[:1] == ("Annotations",):
        folders = [images / folder.relative_to("Annotations") for images in _IMAGE_FOLDERS]
    matches = (find.matches(str(folder / xml.stem)) for folder in folders)
    return next((found[0] for found in matches if found), None)
