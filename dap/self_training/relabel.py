"""Second round: relabel the images of a store by a detector that was pre-trained on its boxes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import mmcv
import mmdet
import mmengine
import numpy as np
import pyarrow as pa
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor

import dap
from dap.devices import DEVICE_ERRORS, chosen_device, computing_on, is_out_of_memory
from dap.images.image_files import check_size
from dap.images.labelled_images import LabelledImages, Sample
from dap.images.reading import read_in_order
from dap.ranks import all_ranks
from dap.runs.execution import Execution
from dap.runs.store_run import Computed, StoreRun, locked_by_first
from dap.store.reader import MANIFEST, PseudoBoxStore, digests, store_folder
from dap.store.shard import Shard
from dap.store.writer import StoreWriter

from .box_detector import BoxDetector, Detections
from .merge_rule import MergeRule, merged_rows


def relabel_boxes(
    config: Config,
    checkpoint: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    image_root: str | os.PathLike[str] | None = None,
    rule: MergeRule | None = None,
    execution: Execution | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Write a store of the same images whose boxes are merged with detections.

    The classes of an image are those of its boxes in the source. :class:`MergeRule` merges these
    boxes with the detections of the same classes; other detections are left out. An image without
    such a detection keeps its boxes; an image without boxes gets none. The new store has no masks;
    a warning is logged if the source has some.

    If ``torch.distributed`` is initialised, all processes share the images. On one type of device,
    the same run gives the same bytes with any number of processes and restarts. An image that
    cannot be read, or has another size than in the source, is left out and listed. The next start
    tries it again if the failure may be temporary.

    Args:
        config: Config of the detector, with a test pipeline.
        checkpoint: Weights of the detector: file or URL.
        source: Folder of a finished store, usually the one that the detector was trained on.
        out: Folder to write, created if needed. A finished run with the same detector, source and
            settings is kept, an unfinished one is resumed, and any other is rejected.
        image_root: Folder of the images. Defaults to the one that the source was made from.
        rule: How detections and boxes are merged.
        execution: Options of the execution. ``batch_size`` defaults to 1. It changes the boxes,
            since images of a batch are padded to one size. ``shard_size`` is that of the source.
        device: Device to compute on. Defaults to CUDA if available, else the CPU.

    Returns:
        The content of ``summary.json``.

    Raises:
        ValueError: If config, checkpoint and source do not fit together, ``out`` is the source
            or holds another run, or the processes have different inputs.
        RuntimeError: If too many images cannot be used, or another process writes ``out``.
        OSError: If ``out`` cannot be written, or the disk is full; finished shards are kept.
    """
    rule, execution, out = rule or MergeRule(), execution or Execution(), Path(out)
    folder = store_folder(source)
    if folder.resolve() == out.resolve():
        raise ValueError(f"{out} is the source itself: choose another output folder")
    compute_device = chosen_device(device)
    store = PseudoBoxStore(folder)
    if store.has_masks:
        print_log(
            f"{folder} has masks, but detections have none: {out} gets boxes only",
            "current",
            logging.WARNING,
        )
    detector = BoxDetector(config, checkpoint, store.categories, compute_device)
    root = os.fspath(image_root or store.manifest["image_list"]["root"])
    description = _description(store, detector, rule, execution, compute_device.type)
    description |= {"checkpoint": checkpoint, "config": config.filename, "source": str(folder)}
    description["image_list"]["root"] = root
    with all_ranks() as ranks, computing_on(compute_device, execution.tf32):
        keys = ("settings", "detector", "computation", "versions")
        same = {key: description[key] for key in keys}
        ranks.require_same(same, "Give all of them the same command, files and versions")
        run = StoreRun(ranks, StoreWriter(out, description), execution)
        with locked_by_first(ranks, out):
            missing, failed = ranks.on_first_rank(run.work)
            if missing or failed:
                run.compute(_Relabelling(store, root, detector, rule, execution), missing, failed)
            return run.finish()


def _description(
    store: PseudoBoxStore,
    detector: BoxDetector,
    rule: MergeRule,
    execution: Execution,
    device: str,
) -> dict[str, Any]:
    """Describe the origin of the new store, for :class:`StoreWriter`."""
    images = store.manifest["image_list"]
    names = {"names_sha256": images["names_sha256"]} if "names_sha256" in images else {}
    settings = {k: v for k, v in store.manifest["settings"].items() if k != "masks"}
    return {
        "settings": {**settings, **rule.as_json()},
        "classifier": store.manifest["classifier"],
        "detector": detector.described(),
        "computation": {
            "device": device,
            "tf32": device == "cuda" and execution.tf32,
            "batch_size": execution.batch_size or 1,
        },
        "image_list": {
            "count": len(store),
            **names,
            "source_sha256": digests([store.folder / MANIFEST])[0],
        },
        "versions": {
            module.__name__: module.__version__
            for module in (dap, torch, np, mmcv, mmengine, mmdet, pa)
        },
        "shard_size": store.shard_size,
        "categories": store.categories,
    }


class _Relabelling:
    """Computes new records of the images of a store; see :class:`RecordSource`."""

    def __init__(
        self,
        store: PseudoBoxStore,
        root: str,
        detector: BoxDetector,
        rule: MergeRule,
        execution: Execution,
    ) -> None:
        self.store, self.detector, self.rule = store, detector, rule
        names = (shard.file_name(row) for shard in store.shards for row in range(len(shard)))
        no_labels = np.zeros(0, np.int64)
        self.images = LabelledImages.of_files(root, ((name, no_labels) for name in names))
        self.batch_size = execution.batch_size or 1
        # A batch lies in one group, and a group is one shard, so batches do not depend on shards
        # that exist already.
        self.window, self.one_by_one = 1, self.batch_size == 1
        self._timeout = execution.read_timeout
        self._workers = execution.workers(next(detector.model.parameters()).is_cuda)

    def records(self, groups: Sequence[Sequence[int]]) -> Iterator[Computed]:
        """Compute the records of groups of images, in order; a batch lies in one group."""
        indices = [index for group in groups for index in group]
        usable = [i for i in indices if _has_boxes(*self.store.locate(i))]
        samples = read_in_order(self.images, usable, self._workers, self._timeout)
        for group in groups:
            for start in range(0, len(group), self.batch_size):
                yield from self._batch(group[start : start + self.batch_size], samples)

    def _batch(self, batch: Sequence[int], samples: Iterator[Sample]) -> Iterator[Computed]:
        """Compute the records of a batch; images without boxes are not read."""
        locations = [self.store.locate(index) for index in batch]
        read = [
            _of_same_size(next(samples), *location) if _has_boxes(*location) else None
            for location in locations
        ]
        images = [sample.image for sample in read if sample and sample.image is not None]
        detected = iter(self._detected(images))
        for index, (shard, row), sample in zip(batch, locations, read, strict=True):
            record: dict[str, Any] = {"id": int(shard.ids[row]), "file_name": shard.file_name(row)}
            size_hw = int(shard.sizes_hw[0][row]), int(shard.sizes_hw[1][row])
            readable = sample is not None and sample.image is not None
            result = next(detected) if readable else None
            if isinstance(result, Detections):
                rows = merged_rows(*shard.boxes_of(row), result, size_hw, self.rule)
                record |= {"height": size_hw[0], "width": size_hw[1], "boxes": rows}
            elif sample is not None:
                record["reason"] = result or sample.error
            else:
                record["reason"] = _reasons(shard)[row]
                if size_hw[0]:
                    record |= {"height": size_hw[0], "width": size_hw[1], "boxes": []}
            yield Computed(self.images.entry(index), readable, record)

    def _detected(self, images: Sequence[Tensor]) -> list[Detections | str]:
        """Detect objects in some images; return the error for an image that makes it fail."""
        if not images:
            return []
        try:
            return list(self.detector.detect(images))
        except (ArithmeticError, RuntimeError, ValueError) as error:
            if is_out_of_memory(error) or isinstance(error, DEVICE_ERRORS):
                raise  # not caused by the image
            if len(images) == 1:
                return [f"{type(error).__name__}: {error}"]
        return [detections for image in images for detections in self._detected([image])]


@lru_cache(maxsize=2)
def _reasons(shard: Shard) -> dict[int, str]:
    """Row → reason, of the images of a shard without boxes."""
    return dict(shard.reasons())


def _has_boxes(shard: Shard, row: int) -> bool:
    return bool(shard.starts[row + 1] > shard.starts[row])


def _of_same_size(sample: Sample, shard: Shard, row: int) -> Sample:
    """Replace an image by an error if its size is not the one in the store."""
    if sample.image is None:
        return sample
    try:
        check_size(sample.image, (int(shard.sizes_hw[0][row]), int(shard.sizes_hw[1][row])))
    except ValueError as error:
        return sample._replace(image=None, error=str(error))
    return sample
