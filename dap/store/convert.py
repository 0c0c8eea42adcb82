"""Convert a store to a COCO file, and a COCO file to a store."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from mmengine.logging import print_log

import dap
from dap.files import locked, output_file
from dap.progress import Progress

from .coco import export_coco
from .coco_source import CocoSource, open_coco_source
from .reader import MANIFEST, PseudoBoxStore, digests
from .statistics import summary_line
from .writer import StoreWriter, default_shard_size


def convert_annotations(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Call :func:`store_to_coco` if the source is a store, else :func:`coco_to_store`."""
    source = Path(source)
    if source.is_dir() or source.name == MANIFEST:
        store_to_coco(source, out)
    else:
        coco_to_store(source, out)


def store_to_coco(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Write the boxes of a store as a COCO file with the content of its ``annotations.json``.

    Args:
        source: Folder of the store, or its ``manifest.json``.
        out: File to write. An existing file with the same content is kept.

    Raises:
        ValueError: If there is no finished store, it is damaged, or ``out`` is no ``.json``.
        OSError: If ``out`` exists with other content, is a folder, or cannot be written.
    """
    out = output_file(out)
    if out.suffix != ".json":
        raise ValueError(f"{out}: {source} is a store, to be written as a file: name it ….json")
    store = PseudoBoxStore(source)
    export_coco(store, out, once=True)
    print_log(f"{out}: the boxes of {len(store)} images of {store.folder}", logger="current")


def coco_to_store(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> dict[str, Any]:
    """Convert a COCO file to a store, to train with :class:`dap.datasets.PseudoBoxDataset`.

    The file may come from any tool: :func:`dap.coco_file.read_coco_file` reads it and repairs
    what has only one possible meaning. The store keeps image ids, the categories (their order is
    that of the labels) and the threshold of each annotation. Each corner of a box is rounded to
    hundredths of a pixel; boxes without width or height after that, and boxes with an area of 0,
    are dropped. Annotations get new ids. If each annotation has a segmentation, the store
    has masks. A warning names the fields that a store cannot hold, such as segmentations that only
    some annotations have, and the boxes that a training will leave out.

    A file that was written from a store is read line by line, whatever its size; any other is held
    in memory. If the conversion is killed, the next call writes the missing shards.

    Args:
        source: The COCO file.
        out: Folder to write, created if needed. A finished store of the same file is kept, an
            unfinished one is completed; anything else is refused.

    Returns:
        The content of ``summary.json``.

    Raises:
        ValueError: If the file is no COCO file of boxes, has annotations that a training must
            ignore (``iscrowd``, ``ignore``), or ``out`` holds something else.
        RuntimeError: If another process writes ``out``.
        OSError: If a file cannot be read or written; finished shards are kept.
    """
    source, out = Path(source), Path(out)
    if out.suffix == ".json" or out.is_file():
        raise ValueError(f"{out}: {source} is a COCO file, to be made a store: name a folder")
    coco = open_coco_source(source)
    writer = StoreWriter(out, _description(source, coco))
    with locked(out / ".lock"):
        missing = writer.begin()
        summary = writer.finished_summary()
        if summary is not None:
            return summary
        if missing:
            _write_shards(coco, writer, set(missing))
            coco.checks.report()
        summary = writer.finish()
    print_log(f"{out}: {summary_line(summary)}", logger="current")
    return summary


def _description(path: Path, coco: CocoSource) -> dict[str, Any]:
    """The description of the store, as :class:`StoreWriter` takes it."""
    masks = {"masks": True} if coco.checks.masks else {}
    info = {} if coco.info is None else {"info": coco.info}
    return {
        "settings": {"thresholds": coco.thresholds, **masks},
        "classifier": {},
        "image_list": {
            "count": coco.images,
            "root": "",
            "names_sha256": coco.names_sha256,
            "source_sha256": digests([path])[0],
        },
        "source": str(path),
        "versions": {module.__name__: module.__version__ for module in (dap, np, pa)},
        "shard_size": default_shard_size(coco.images),
        "categories": coco.categories,
        **info,
    }


def _write_shards(coco: CocoSource, writer: StoreWriter, missing: set[int]) -> None:
    """Write the missing shards; the last one only after the whole file has passed the checks."""
    records = coco.records()
    progress = Progress(writer.count, writer.count)
    for shard in range(writer.shards):
        chunk = []
        for record in islice(records, len(writer.indices(shard))):
            chunk.append(record)
            progress.step()
        if shard == writer.shards - 1:
            next(records, None)  # runs the checks at the end of the file
        if shard in missing:
            writer.write(shard, chunk)
    progress.close()
