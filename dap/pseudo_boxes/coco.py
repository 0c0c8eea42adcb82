"""``annotations.json`` and ``summary.json``: from the records of all processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dap.files import whole_file, write_items

from .merging import DECIMALS
from .run import PseudoBoxRun, coco_info
from .statistics import RunStatistics


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
    images = (_image(i, record) for i, record in in_order() if "error" not in record)
    boxes = coco_annotations(in_order(), run.settings["thresholds"])
    info = coco_info(run.as_json())
    write_annotations(out / "annotations.json", info, run.categories, images, boxes)
    write_summary(out / "summary.json", summary)
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
    statistics = RunStatistics(run.settings["thresholds"])
    failed: list[dict[str, str]] = []
    images = right = 0
    for _, record in records:
        if "error" in record:
            failed.append({"file_name": record["file_name"], "reason": record["error"]})
            continue
        images += 1
        right += record["top1"]
        statistics.add(record)
    return {
        "images": images,
        "top1": round(right / images, 4) if images else None,
        **statistics.summary(images),
        "failed": failed,
        **run.as_json(),
    }


def _image(index: int, record: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": index + 1,
        "file_name": record["file_name"],
        "width": record["width"],
        "height": record["height"],
    }


def coco_annotations(
    records: Iterable[tuple[int, dict[str, Any]]], thresholds: Sequence[float]
) -> Iterator[dict[str, Any]]:
    """Number the boxes of the images.

    Args:
        records: Index of each image, and its boxes as :func:`merged_boxes` has them.
        thresholds: Values of τ of the run.

    Yields:
        COCO annotations with the threshold each was found at.
    """
    number = 0
    for index, record in records:
        for x1, y1, x2, y2, label, tau in record.get("boxes", ()):
            number += 1
            width, height = round(x2 - x1, DECIMALS), round(y2 - y1, DECIMALS)
            yield {
                "id": number,
                "image_id": index + 1,
                "category_id": label + 1,
                "bbox": [x1, y1, width, height],
                "area": round(width * height, 2),
                "iscrowd": 0,
                "threshold": thresholds[tau],
            }


def box_of(annotation: dict[str, Any]) -> list[float]:
    """The xyxy that :func:`coco_annotations` was given, to the last bit."""
    x, y, width, height = annotation["bbox"]
    return [x, y, round(x + width, DECIMALS), round(y + height, DECIMALS)]


def write_annotations(
    path: Path,
    info: dict[str, Any],
    categories: list[dict[str, Any]],
    images: Iterator[dict[str, Any]],
    annotations: Iterator[dict[str, Any]],
) -> None:
    """Write a COCO file, one image or annotation a line, images first; hold none of them."""
    with whole_file(path) as file:
        file.write(f'{{"info": {json.dumps(info)},\n"categories": {json.dumps(categories)},\n')
        file.write('"images": [\n')
        write_items(file, images)
        file.write('],\n"annotations": [\n')
        write_items(file, annotations)
        file.write("]}\n")


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary: the last file of a run, by which it is known as finished."""
    with whole_file(path) as file:
        file.write(json.dumps(summary, indent=2) + "\n")
