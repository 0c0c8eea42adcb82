"""Step 2 for a whole data set: classifier + labelled images → folder with a COCO json."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dist import all_gather_object, barrier, get_rank, get_world_size
from mmengine.logging import print_log
from torch import nn
from torch.utils.data import DataLoader

from dap.cam import box_candidates

from .classifier import CamClassifier, evaluating
from .coco import merge_records
from .images import LabelledImages, Sample
from .merging import merged_boxes, rounded
from .progress import Progress
from .run import PseudoBoxRun, finished_summary
from .settings import PseudoBoxSettings
from .statistics import summary_line

BLOCK = 64  # images in a row that one process takes; independent of the number of processes
FAILURES_IN_A_ROW = 50  # with so many, it is not the images
# A dying device has an error of its own since torch 2.8.
FATAL = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))


def generate_pseudo_boxes(
    model: nn.Module,
    dataset: Any,
    out_dir: str | os.PathLike[str],
    settings: PseudoBoxSettings | None = None,
    checkpoint: str | None = None,
    num_workers: int = 2,
) -> dict[str, Any]:
    """Turn a classification data set into a detection data set (DAP, section 3.1, Step 2).

    Writes ``annotations.json`` (COCO: categories named by WordNet id where the data set has them,
    boxes with the threshold they were found at) and ``summary.json`` (counts, mean sizes, images
    that could not be read and why, all settings). The same run gives the same bytes, with any
    number of processes: when ``torch.distributed`` is initialised, they share the images.

    An image that cannot be read, or whose map is not finite, is left out, counted and named; it
    stops nothing, unless the maps of 50 in a row cannot be computed. An image with several classes
    gets boxes for each class, merged class by class.

    Args:
        model: A built mmpretrain classifier with its weights, on the device to work on.
        dataset: A built mmpretrain dataset with labels: the training split.
        out_dir: Folder to write, made if need be. A finished run of the same classifier, images
            and settings in it is kept as it is; any other is refused.
        settings: Views, thresholds, NMS and rule. Defaults to the paper's.
        checkpoint: Where the weights came from, for the record.
        num_workers: Processes that read images, per rank.

    Returns:
        The content of ``summary.json``.

    Raises:
        ValueError: If no map can be had from the classifier, the data set has no labels or other
            classes, or the folder holds another run.
        RuntimeError: If not one image could be read, the device fails or is out of memory, or the
            computation failed for 50 images in a row.
    """
    settings = settings or PseudoBoxSettings()
    classifier = CamClassifier(model)
    images = LabelledImages(dataset)
    run = PseudoBoxRun.describe(classifier, images, settings, checkpoint)
    out = Path(out_dir)
    summary = finished_summary(out, run.as_json())
    if summary is not None:
        print_log(f"{out} is finished already: nothing to do", logger="current")
        return summary
    records = out / ".records"
    records.mkdir(parents=True, exist_ok=True)
    world_size = get_world_size()
    barrier()
    failures = _write_records(records, classifier, images, settings, num_workers)
    _refuse_total_failure(all_gather_object(failures), len(images), out)
    if get_rank() == 0:
        merge_records(records, out, run, world_size, BLOCK)
    barrier()
    summary = json.loads((out / "summary.json").read_text())
    print_log(f"{out}: {summary_line(summary)}", logger="current")
    return summary


def _write_records(
    folder: Path,
    classifier: CamClassifier,
    images: LabelledImages,
    settings: PseudoBoxSettings,
    num_workers: int,
) -> list[str]:
    """Write this rank's records, one JSON line an image, in the order of its blocks.

    Returns:
        The images of this rank that could not be used, "file: reason".

    Raises:
        RuntimeError: If the computation, not the reading, failed for too many images in a row.
    """
    rank, world_size = get_rank(), get_world_size()
    blocks = range(rank, -(-len(images) // BLOCK), world_size)
    indices = [i for b in blocks for i in range(b * BLOCK, min(len(images), (b + 1) * BLOCK))]
    progress = Progress(len(indices), len(images), world_size)
    failures = []
    in_a_row = 0
    with (
        evaluating(classifier.model),
        open(folder / f"rank{rank}.jsonl", "w", encoding="utf-8") as file,
    ):
        for sample in _samples(images, indices, num_workers):
            record = _record(sample, classifier, settings)
            record["file_name"] = sample.entry.file_name
            if "error" in record:
                failures.append(f"{sample.entry.path}: {record['error']}")
            if sample.image is not None:
                in_a_row = in_a_row + 1 if "error" in record else 0
            if in_a_row == FAILURES_IN_A_ROW:
                raise RuntimeError(
                    f"the maps of {in_a_row} images in a row could not be computed: look at the "
                    f"device and the classifier. {folder.parent} is not finished. The last: "
                    f"{failures[-1]}"
                )
            file.write(json.dumps(record) + "\n")
            progress.step()
    line = progress.close()
    if rank == 0:
        print_log(line, logger="current")
    return failures


def _refuse_total_failure(failures: list[list[str]], count: int, out: Path) -> None:
    """Stop all ranks when there is nothing to write; name the failures otherwise."""
    found = [failure for of_rank in failures for failure in of_rank]
    if len(found) == count:
        raise RuntimeError(
            f"none of {count} images could be used, nothing was written to {out}. The first: "
            f"{found[0]}"
        )
    if found:
        shown = "; ".join(found[:5])
        print_log(f"{len(found)} of {count} images failed: {shown}", "current", logging.WARNING)


def _samples(images: LabelledImages, indices: list[int], num_workers: int) -> Iterator[Sample]:
    """Read images in worker processes, in the order of ``indices``."""
    return iter(
        DataLoader(
            images,
            batch_size=None,
            sampler=indices,
            num_workers=num_workers,
            collate_fn=_as_is,
            worker_init_fn=_single_threaded,
        )
    )


def _as_is(sample: Any) -> Any:
    return sample


def _single_threaded(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _record(
    sample: Sample, classifier: CamClassifier, settings: PseudoBoxSettings
) -> dict[str, Any]:
    """Find the boxes of one image; say why where there are none to be had."""
    if sample.image is None:
        return {"error": sample.error}
    try:
        return _boxes_record(sample, classifier, settings)
    except FATAL:
        raise
    except (FloatingPointError, RuntimeError, AssertionError) as error:  # this image alone
        return {"error": f"{type(error).__name__}: {error}"}


def _boxes_record(
    sample: Sample, classifier: CamClassifier, settings: PseudoBoxSettings
) -> dict[str, Any]:
    assert sample.image is not None
    height, width = sample.image.shape[1:]
    merged, logits = classifier.maps(sample.image, torch.as_tensor(sample.entry.labels), settings)
    maps = merged.maps.cpu().numpy()
    if not np.isfinite(maps).all():
        raise FloatingPointError("the activation map is NaN or infinite")
    grid = merged.cell_size, (height, width)
    found = (
        (label, rounded(box_candidates(cam, settings.thresholds, settings.rule, *grid)))
        for label, cam in zip(sample.entry.labels.tolist(), maps, strict=True)
    )
    return {
        "height": height,
        "width": width,
        **merged_boxes(found, settings),
        "top1": int(logits.argmax()) in sample.entry.labels,
    }
