"""Step 2 for a whole data set: classifier + labelled images → store, COCO json, summary."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from mmcv.transforms import LoadImageFromFile
from mmengine.logging import print_log
from torch import nn

from dap._malloc import tune_malloc
from dap.devices import computing_on
from dap.images.labelled_images import Entry, LabelledImages
from dap.images.shared_images import shared_images
from dap.progress import Progress
from dap.ranks import all_ranks
from dap.runs.early_verdict import early_verdict
from dap.runs.execution import Execution
from dap.runs.store_run import FailedImages, ImageDone, Record, StoreRun, locked_by_first
from dap.store.writer import StoreWriter

from .classifier import CamClassifier, evaluating
from .pipeline import Pipeline
from .run_description import describe_process, describe_run
from .settings import PseudoBoxSettings


class Watcher(Protocol):
    """Receives each image of a run when its boxes are computed."""

    def start(self, images: int, already_done: int, loader: LoadImageFromFile) -> None:
        """Called once before the first image.

        Args:
            images: Number of images that this process will compute.
            already_done: Number of images finished by earlier runs, in all processes.
            loader: How images are opened and decoded.
        """

    def image_done(self, entry: Entry, record: Record, classifier: CamClassifier) -> None:
        """Called for each computed image.

        Args:
            entry: The image.
            record: The record of the image, with its boxes, as :class:`StoreWriter` writes it.
            classifier: The classifier, in evaluation mode.
        """


def generate_pseudo_boxes(
    model: nn.Module,
    dataset: Any,
    out_dir: str | os.PathLike[str],
    settings: PseudoBoxSettings | None = None,
    checkpoint: str | None = None,
    execution: Execution | None = None,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Turn a classification data set into a detection data set (DAP, section 3.1, Step 2).

    Writes a :class:`PseudoBoxStore` and two files derived from it: ``annotations.json`` (COCO, with
    categories named by WordNet id if the data set has them, and the threshold of each box) and
    ``summary.json`` (counts, mean sizes, images that could not be read with the reasons, all
    settings). If ``torch.distributed`` is initialised, all processes share the images. The first
    process lists them for all; the others return when the store is complete, before the two files
    are written. On one kind of device, a run gives the same bytes with any number of processes (on
    GPUs, this is not promised for maps by gradient). A run that was killed continues with the
    missing shards, with the same result.

    An image that cannot be read, or whose map is not finite, is left out, counted and named. The
    run stops only if there are too many of them, or if the maps of 50 images in a row cannot be
    computed. An image that failed for a temporary reason, such as a disk that did not answer, is
    tried again at the end and by the next run. An image with several classes gets boxes of each
    class, which are merged per class.

    Before the first shard, the boxes of 200 images evenly spread over the data set are judged.

    Args:
        model: A built mmpretrain classifier with its weights, on the device to use.
        dataset: A built mmpretrain dataset with labels: the training split.
        out_dir: Folder to write, created if needed. A finished run of the same classifier, images
            and settings is kept, an unfinished one is continued. Any other run is refused.
        settings: Settings of Step 2. Defaults to :class:`PseudoBoxSettings`.
        checkpoint: Origin of the weights, recorded in the files.
        execution: How to carry out the run. Defaults to :class:`Execution`.
        watcher: Receives each image of the first process when it is computed.

    Returns:
        The content of ``summary.json``.

    Raises:
        ValueError: If no maps can be computed from the classifier, the data set has no labels or
            other classes, the folder holds another run, or the processes differ.
        RuntimeError: If too many images cannot be used, the first boxes are worthless, the device
            fails or is out of memory, the computation failed for 50 images in a row, or another
            process writes the folder.
        OSError: If the folder cannot be written, or is full; finished shards are kept.
    """
    settings, execution = settings or PseudoBoxSettings(), execution or Execution()
    classifier = CamClassifier(model, settings.map_method)
    with all_ranks() as ranks, computing_on(classifier.device, execution.tf32):
        if ranks.rank == 0:
            _log_maps(classifier, settings)
        process = describe_process(classifier, settings, execution)
        images: LabelledImages | None = None  # stays None in the other processes

        def description() -> dict[str, Any]:
            nonlocal images
            images = LabelledImages(dataset)
            return describe_run(process, images, checkpoint, execution.shard_size)

        described = ranks.on_first_rank(description)
        ranks.require_same(process, "Give all of them the same command, files and versions")
        run = StoreRun(ranks, StoreWriter(Path(out_dir), described), execution)
        with locked_by_first(ranks, run.writer.folder):
            missing, failed = ranks.on_first_rank(run.work)
            if missing or failed:
                with shared_images(ranks, images, dataset, run.writer.folder) as shared:
                    _compute(run, shared, classifier, settings, missing, failed, watcher)
            return run.finish()


def _compute(
    run: StoreRun,
    images: LabelledImages,
    classifier: CamClassifier,
    settings: PseudoBoxSettings,
    missing: list[int],
    failed: FailedImages,
    watcher: Watcher | None,
) -> None:
    """Compute and write missing shards; try images again that failed for a temporary reason."""
    if run.ranks.rank == 0:
        print_log(settings.rule_line(), logger="current")
    classifier.speed_up()
    if classifier.device.type == "cpu":
        tune_malloc()
    with evaluating(classifier.model):
        pipeline = Pipeline(images, classifier, settings, run.execution)
        early = early_verdict(run.ranks, run.writer, pipeline, missing, run.execution)

        def on_start(progress: Progress) -> ImageDone | None:
            if watcher is None or run.ranks.rank:
                return None
            watcher.start(progress.share, run.writer.count - progress.total, images.loader)
            return partial(watcher.image_done, classifier=classifier)

        run.compute(pipeline, missing, failed, early, on_start)
    if run.ranks.rank == 0 and not pipeline.one_by_one:
        print_log(f"maps were computed with {pipeline.mean_batch()}", logger="current")


def _log_maps(classifier: CamClassifier, settings: PseudoBoxSettings) -> None:
    """Log how the maps are computed, and the input size if the classifier takes only one."""
    classifier.views(settings)  # refuses a rule that the classifier does not support
    print_log(f"class activation maps are {classifier.map_description}", "current")
    if classifier.input_size is not None:
        height, width = classifier.input_size
        print_log(
            f"the classifier takes only images of {width} x {height} px: each image is resized to "
            "that size, whatever its shape, and short_sides has no effect",
            "current",
            logging.WARNING,
        )
