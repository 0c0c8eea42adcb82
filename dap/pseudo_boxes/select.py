"""From one run without NMS to the runs of its thresholds and of any NMS, without a map."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from dap.cam import NMS_IOU
from dap.cam.boxes import Candidates

from .coco import box_of, coco_annotations, write_annotations, write_summary
from .coco_reader import CocoReader
from .merging import merged_boxes
from .progress import Progress
from .run import coco_info, finished_summary
from .settings import PseudoBoxSettings
from .statistics import RunStatistics, summary_line

_CURE = "It is not as Step 2 wrote it: give the folder of a run as it was finished"


def select_boxes(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    thresholds: Sequence[float] | None = None,
    nms_iou: float | None = NMS_IOU,
) -> dict[str, Any]:
    """Derive the run of other thresholds and another NMS from a run that kept every box.

    ``annotations.json`` has the bytes that :func:`generate_pseudo_boxes` would write with these
    settings, ``summary.json`` the same content, and ``derived_from``, the settings of the source.
    Files are read and written line by line, the summary last: a folder with one is finished.

    Args:
        source: Folder of a finished run with ``nms_iou=None``.
        out: Folder to write, made if need be. A finished run of the same classifier, images and
            settings in it is kept as it is; any other is refused.
        thresholds: Values of τ among those of the source. Defaults to all of them.
        nms_iou: IoU threshold of the merging NMS in (0, 1]; None for no NMS.

    Returns:
        The content of ``summary.json``.

    Raises:
        ValueError: If the source is no finished run without NMS, is damaged or lacks a threshold,
            a setting is out of range, or ``out`` is the source or holds another run.
    """
    source, out = Path(source), Path(out)
    if source.resolve() == out.resolve():
        raise ValueError(f"{out} is the source itself: choose another output folder")
    given = _source_summary(source)
    settings = _selected_settings(source, given["settings"], thresholds, nms_iou)
    described = {**given, "settings": settings.as_json()}
    summary = finished_summary(out, described)
    if summary is not None:
        print_log(f"{out} is finished already: nothing to do", logger="current")
        return summary
    statistics = _write_selected(source, out, given, described)
    summary = {**described, **statistics.summary(given["images"])}
    summary["derived_from"] = given["settings"]
    write_summary(out / "summary.json", summary)
    print_log(f"{out}: {summary_line(summary)}", logger="current")
    return summary


def _source_summary(source: Path) -> dict[str, Any]:
    """Read the summary of a source; refuse what is none."""
    path = source / "summary.json"
    if not path.is_file() or not (source / "annotations.json").is_file():
        raise ValueError(
            f"{source} holds no finished run: expected annotations.json and summary.json. Give the "
            "folder that tools/generate_pseudo_boxes.py has written"
        )
    try:
        summary = json.loads(path.read_text())
        known = summary["settings"].keys() == PseudoBoxSettings.__dataclass_fields__.keys()
        known &= summary.keys() >= {"images", "images_without_boxes", "merged"}
        known &= summary.keys() >= {"top1", "failed", "classifier"}
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what Step 2 writes ({error!r})") from error
    if not known:
        raise ValueError(f"{path} is not what Step 2 writes: it lacks fields or has other settings")
    return summary


def _selected_settings(
    source: Path,
    given: dict[str, Any],
    thresholds: Sequence[float] | None,
    nms_iou: float | None,
) -> PseudoBoxSettings:
    """The settings of the derived run, if the source has what they need."""
    if thresholds is None:
        thresholds = given["thresholds"]
    settings = PseudoBoxSettings(**{**given, "thresholds": thresholds, "nms_iou": nms_iou})
    if given["nms_iou"] is not None:
        raise ValueError(
            f"{source} was merged by NMS at IoU {given['nms_iou']}: what that dropped is gone. "
            "Make a run without NMS to select from (--cfg-options pseudo_boxes.nms_iou=None)"
        )
    missing = [tau for tau in settings.thresholds if tau not in given["thresholds"]]
    if missing:
        raise ValueError(
            f"thresholds: {source} has boxes of {given['thresholds']}, found {missing}. Choose "
            "among those, or make a run with these"
        )
    return settings


def _write_selected(
    source: Path, out: Path, given: dict[str, Any], described: dict[str, Any]
) -> RunStatistics:
    """Write the annotations of the derived run; count its boxes."""
    settings = PseudoBoxSettings(**described["settings"])
    statistics = RunStatistics(settings.thresholds)
    path = source / "annotations.json"
    with open(path, encoding="utf-8") as file:
        reader = CocoReader(file)
        if reader.info != coco_info(given):
            raise ValueError(f"{path} is of another run than the summary.json beside it")
        images = _complete(reader.images(), ("id",), given["images"], path)
        keys = ("image_id", "category_id")
        found = _complete(reader.annotations(), keys, given["merged"]["boxes"], path)
        with_boxes = given["images"] - given["images_without_boxes"]
        records = _records(found, settings, statistics, with_boxes)
        boxes = coco_annotations(records, settings.thresholds)
        out.mkdir(parents=True, exist_ok=True)
        info = coco_info(described)
        write_annotations(out / "annotations.json", info, reader.categories, images, boxes)
    return statistics


def _complete(
    items: Iterable[dict[str, Any]], keys: tuple[str, ...], count: int, path: Path
) -> Iterator[dict[str, Any]]:
    """Pass items on; refuse a file in which some are missing or stand in another order."""
    last: list[int] = []
    number = 0
    for item in items:
        number += 1
        place = [item[key] for key in keys]
        if place < last:
            raise ValueError(f"{path}: {keys} {place} stands behind {last}. {_CURE}")
        last = place
        yield item
    if number != count:
        raise ValueError(f"{path} has {number} items with {keys}, summary.json {count}. {_CURE}")


def _records(
    annotations: Iterable[dict[str, Any]],
    settings: PseudoBoxSettings,
    statistics: RunStatistics,
    with_boxes: int,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Merge the boxes of each image that has any, so many; count them."""
    progress = Progress(with_boxes, with_boxes)
    for image_id, of_image in groupby(annotations, itemgetter("image_id")):
        found = (
            (category - 1, _candidates(of_label, settings.thresholds))
            for category, of_label in groupby(of_image, itemgetter("category_id"))
        )
        record = merged_boxes(found, settings)
        statistics.add(record)
        yield image_id - 1, record
        progress.step()
    progress.close()


def _candidates(annotations: Iterable[dict[str, Any]], thresholds: Sequence[float]) -> Candidates:
    """The boxes of these thresholds in the order in which they were found.

    They stand in the file by falling area, those of one area in the order in which they were
    found. NMS sorts them so anyway: only the order of the thresholds is left to restore.
    """
    found = sorted(
        (
            (thresholds.index(annotation["threshold"]), box_of(annotation))
            for annotation in annotations
            if annotation["threshold"] in thresholds
        ),
        key=itemgetter(0),
    )
    boxes = np.array([box for _, box in found], dtype=np.float64).reshape(-1, 4)
    return Candidates(boxes, np.array([tau for tau, _ in found], dtype=int))
