"""Convert boxes and detection sets from one format to another."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.logging import print_log

from dap.files import output_file
from dap.store.convert import convert_annotations
from dap.store.reader import MANIFEST

from .detection_data import TRAIN, read_detection_data, write_split


def convert(
    source: str | os.PathLike[str], out: str | os.PathLike[str], split: str = TRAIN
) -> None:
    """Convert a store to a COCO file, a COCO file to a store, or another set to a COCO file.

    Args:
        source: Folder of a store or its manifest.json, a COCO file, or a folder in the layout of
            VOC or YOLO, see :func:`.read_detection_data`.
        out: File (``….json``) or folder to write. Existing files are not overwritten.
        split: Split to convert, for a source with several.

    Raises:
        OSError: If a file is missing, or ``out`` exists with other content.
        ValueError: If the source is malformed, or has no such split.
    """
    path = Path(source)
    is_store = path.name == MANIFEST or (path / MANIFEST).is_file()
    if is_store or path.suffix == ".json":
        convert_annotations(source, out)
        return
    splits = read_detection_data(path)
    if split not in splits:
        raise ValueError(f"{source} has no split {split!r}; expected one of {', '.join(splits)}")
    detection_set, file = splits[split], output_file(out)
    if file.suffix != ".json":
        raise ValueError(
            f"{out}: {detection_set.path} is a detection set, which is converted to a COCO file: "
            "name it ….json. The same program converts a COCO file to a store"
        )
    content = detection_set.content
    write_split(file, content, {"description": f"DAP: of {detection_set.path}"})
    print_log(
        f"{out}: {len(content['images'])} images, {len(content['annotations'])} boxes; "
        f"file names are relative to {detection_set.images or '/'}",
        logger="current",
    )
