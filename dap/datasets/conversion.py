"""Boxes and detection sets from one format to another."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.logging import print_log

from dap.files import output_file
from dap.store.convert import convert_annotations
from dap.store.reader import MANIFEST

from .detection_data import TRAIN, DetectionSplit, read_detection_data, write_split


def convert(
    source: str | os.PathLike[str], out: str | os.PathLike[str], split: str = TRAIN
) -> None:
    """Turn a store into a COCO file, a COCO file into a store, another set into a COCO file.

    Args:
        source: Folder of a store or its manifest.json, a COCO file, or a folder in the layout of
            VOC or YOLO, see :func:`.read_detection_data`.
        out: File (``….json``) or folder to write. What is there stays.
        split: Of a set with several.

    Raises:
        OSError: If a file is missing, or one with other content is there.
        ValueError: If the source is malformed, or there is no such split.
    """
    path = Path(source)
    is_store = path.name == MANIFEST or (path / MANIFEST).is_file()
    if is_store or path.suffix == ".json":
        convert_annotations(source, out)
        return
    splits = read_detection_data(path)
    if split not in splits:
        raise ValueError(f"{source} has no split {split!r}; expected one of {', '.join(splits)}")
    _write(splits[split], output_file(out))


def _write(split: DetectionSplit, out: Path) -> None:
    if out.suffix != ".json":
        raise ValueError(
            f"{out}: {split.path} is a detection set, to be written as a COCO file: name it "
            "….json. Such a file becomes a store by the same program"
        )
    write_split(out, split.content, f"of {split.path}")
    print_log(
        f"{out}: {len(split.content['images'])} images, {len(split.content['annotations'])} boxes; "
        f"file names are relative to {split.images or '/'}",
        logger="current",
    )
