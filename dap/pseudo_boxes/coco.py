"""Merging the records of all processes into ``annotations.json`` and ``summary.json``."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from .run import PseudoBoxRun, identity
from .statistics import BoxStatistics


def merge_records(
    records: Path, out: Path, run: PseudoBoxRun, world_size: int, block: int
) -> dict[str, Any]:
    """Write the COCO file and the summary from the records of all ranks, then remove these.

    Files are written under a temporary name and renamed, the summary last: a folder with a
    summary is finished. The images are streamed, never held.

    Args:
        records: Folder with ``rank{r}.jsonl``, one line an image; rank r has the blocks r,
            r + world_size, …
        out: Folder to write to.
        run: What the run is made of.
        world_size: Number of ranks.
        block: Images per block.

    Returns:
        The summary.
    """

    def in_order() -> Iterator[tuple[int, dict[str, Any]]]:
        return _in_order(records, run.image_list["count"], world_size, block)

    summary = _summarise(in_order(), run)
    _write(out / "annotations.json", lambda file: _write_coco(file, in_order, run))
    _write(out / "summary.json", lambda file: file.write(json.dumps(summary, indent=2) + "\n"))
    shutil.rmtree(records)
    return summary


def _in_order(
    records: Path, count: int, world_size: int, block: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Iterate over the records of all ranks in the order of the data set."""
    with ExitStack() as stack:
        files = [
            stack.enter_context(open(records / f"rank{rank}.jsonl", encoding="utf-8"))
            for rank in range(world_size)
        ]
        for index in range(count):
            line = files[index // block % world_size].readline()
            yield index, json.loads(line)


def _summarise(records: Iterator[tuple[int, dict[str, Any]]], run: PseudoBoxRun) -> dict[str, Any]:
    merged = BoxStatistics()
    single = [BoxStatistics() for _ in run.settings["thresholds"]]
    failed: list[dict[str, str]] = []
    images = empty = right = 0
    for _, record in records:
        if "error" in record:
            failed.append({"file_name": record["file_name"], "reason": record["error"]})
            continue
        images += 1
        empty += not record["boxes"]
        right += record["top1"]
        widths = sum(box[2] - box[0] for box in record["boxes"])
        heights = sum(box[3] - box[1] for box in record["boxes"])
        merged.add([len(record["boxes"]), widths, heights])
        for own, row in zip(single, record["per_threshold"], strict=True):
            own.add(row)
    thresholds = run.settings["thresholds"]
    return {
        "images": images,
        "images_without_boxes": empty,
        "top1": round(right / images, 4) if images else None,
        "merged": merged.summary(images),
        "per_threshold": {
            str(tau): own.summary(images) for tau, own in zip(thresholds, single, strict=True)
        },
        "failed": failed,
        **run.as_json(),
    }


def _write_coco(
    file: TextIO, in_order: Callable[[], Iterator[tuple[int, dict[str, Any]]]], run: PseudoBoxRun
) -> None:
    info = {"description": "DAP pseudo boxes", **identity(run.as_json())}
    file.write(f'{{"info": {json.dumps(info)},\n"categories": {json.dumps(run.categories)},\n')
    file.write('"images": [\n')
    _write_items(file, (_image(i, record) for i, record in in_order() if "error" not in record))
    file.write('],\n"annotations": [\n')
    _write_items(file, _annotations(in_order(), run.settings["thresholds"]))
    file.write("]}\n")


def _image(index: int, record: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": index + 1,
        "file_name": record["file_name"],
        "width": record["width"],
        "height": record["height"],
    }


def _annotations(
    records: Iterator[tuple[int, dict[str, Any]]], thresholds: list[float]
) -> Iterator[dict[str, Any]]:
    number = 0
    for index, record in records:
        for x1, y1, x2, y2, label, tau in record.get("boxes", ()):
            number += 1
            width, height = round(x2 - x1, 2), round(y2 - y1, 2)
            yield {
                "id": number,
                "image_id": index + 1,
                "category_id": label + 1,
                "bbox": [x1, y1, width, height],
                "area": round(width * height, 2),
                "iscrowd": 0,
                "threshold": thresholds[tau],
            }


def _write_items(file: TextIO, items: Iterator[dict[str, Any]]) -> None:
    separator = ""
    for item in items:
        file.write(separator + json.dumps(item))
        separator = ",\n"
    file.write("\n")


def _write(path: Path, write: Callable[[TextIO], object]) -> None:
    """Write a file under a temporary name, sync and rename it."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
