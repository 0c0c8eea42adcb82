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
from dap.ranks import Ranks, all_ranks
from dap.store.writer import StoreWriter

from .classifier import CamClassifier, evaluating
from .early_verdict import early_verdict
from .pipeline import Pipeline, Record
from .run_description import describe_process, describe_run
from .settings import Execution, PseudoBoxSettings
from .store_run import Done, StoreRun, locked_by_first


class Watcher(Protocol):
    """Gets each image of a run when its boxes are computed."""

    def start(self, images: int, already_done: int, loader: LoadImageFromFile) -> None:
        """Called once before the first image.

        Args:
            images: Number of images that this process will compute.
            already_done: Number of images finished by earlier runs, in all processes.
            loader: How images are opened and decoded.
        """

    def image_done(self, entry: Entry, record: Record, classifier: CamClassifier) -> None:
        """Called for each image that is done.

        Args:
            entry: The image.
            record: Its boxes, as :class:`StoreWriter` writes them.
            classifier: In evaluation mode.
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

    Writes a :class:`PseudoBoxStore` and what is derived from it: ``annotations.json`` (COCO:
    categories named by WordNet id where the data set has them, boxes with the threshold they were
    found at) and ``summary.json`` (counts, mean sizes, images that could not be read and why, all
    settings). When ``torch.distributed`` is initialised, all processes share the images; the
    first lists them for all, and the others return as soon as the store is complete, before these
    two files are written. On one kind of device, the same run gives the same bytes with any number
    of processes, however often it is killed and started again: it goes on with the shards that
    are missing.

    An image that cannot be read, or whose map is not finite, is left out, counted and named; it
    stops nothing, unless there are too many of them or the maps of 50 in a row cannot be computed.
    An image that failed for a temporary reason, such as a disk that did not answer, is tried again
    at the end and by the next start. An image with several classes gets boxes for each class,
    merged class by class.

    Before the first shard, 200 images evenly spread over the data set are judged.

    Args:
        model: A built mmpretrain classifier with its weights, on the device to work on.
        dataset: A built mmpretrain dataset with labels: the training split.
        out_dir: Folder to write, made if need be. A finished run of the same classifier, images
            and settings in it is kept as it is, an unfinished one goes on; any other is refused.
        settings: Views, thresholds, NMS and rule. Defaults to :class:`PseudoBoxSettings`'.
        checkpoint: Where the weights came from, for the record.
        execution: How to carry it out.
        watcher: Gets each image of the first process when it is done.

    Returns:
        The content of ``summary.json``.

    Raises:
        ValueError: If no map can be had from the classifier, the data set has no labels or other
            classes, the folder holds another run, or the processes differ.
        RuntimeError: If too many images cannot be used, the first boxes are worthless, the device
            fails or is out of memory, the computation failed for 50 images in a row, or another
            process writes the folder.
        OSError: If the folder cannot be written, or is full; what is finished stays.
    """
    settings, execution = settings or PseudoBoxSettings(), execution or Execution()
    classifier = CamClassifier(model, settings.map_method)
    with all_ranks() as ranks, computing_on(classifier.device, execution.tf32):
        run = _Run(ranks, classifier, settings, execution)
        run.describe(dataset, checkpoint, Path(out_dir))
        with locked_by_first(ranks, run.writer.folder):
            run.compute(dataset, watcher)
            return run.store.finish()


class _Run:
    """One call of :func:`generate_pseudo_boxes` in one process."""

    def __init__(
        self,
        ranks: Ranks,
        classifier: CamClassifier,
        settings: PseudoBoxSettings,
        execution: Execution,
    ) -> None:
        self.ranks, self.classifier = ranks, classifier
        self.settings, self.execution = settings, execution
        self.images: LabelledImages | None = None  # in the first process, before it shares them

    def describe(self, dataset: Any, checkpoint: str | None, folder: Path) -> None:
        """List the images in the first process; compare what all processes are about to do."""
        if self.ranks.rank == 0:
            _log_maps(self.classifier, self.settings)
        process = describe_process(self.classifier, self.settings, self.execution)

        def described() -> dict[str, Any]:
            self.images = LabelledImages(dataset)
            return describe_run(process, self.images, checkpoint, self.execution.shard_size)

        self.described = self.ranks.on_first_rank(described)
        self.ranks.require_same(process, "Give all of them the same command, files and versions")
        self.writer = StoreWriter(folder, self.described)
        self.store = StoreRun(self.ranks, self.writer, self.execution)

    def compute(self, dataset: Any, watcher: Watcher | None) -> None:
        """Compute and write what is missing; try again what failed for a while only."""
        missing, failed = self.ranks.on_first_rank(self.store.work)
        if not missing and not failed:
            return
        if self.ranks.rank == 0:
            print_log(self.settings.rule_line(), logger="current")
        self.classifier.speed_up()
        if self.classifier.device.type == "cpu":
            tune_malloc()
        with (
            shared_images(self.ranks, self.images, dataset, self.writer.folder) as images,
            evaluating(self.classifier.model),
        ):
            pipeline = Pipeline(images, self.classifier, self.settings, self.execution)
            early = early_verdict(self.ranks, self.writer, pipeline, missing, self.execution)
            report = None
            if watcher is not None and self.ranks.rank == 0:
                report = partial(_report_to, watcher, self, pipeline)
            self.store.compute(pipeline, missing, failed, early, report)
        if self.ranks.rank == 0 and not pipeline.one_by_one:
            print_log(f"maps were computed with {pipeline.mean_batch()}", logger="current")


def _log_maps(classifier: CamClassifier, settings: PseudoBoxSettings) -> None:
    """Say how the maps are computed, and in which size if there is only one."""
    classifier.views(settings)  # a rule that does not go with the classifier is refused first
    print_log(f"class activation maps are {classifier.map_description}", "current")
    if classifier.input_size is not None:
        height, width = classifier.input_size
        print_log(
            f"the classifier takes images of {width} x {height} px alone: each image is resized to "
            "that, whatever its shape, and short_sides has no effect",
            "current",
            logging.WARNING,
        )


def _report_to(watcher: Watcher, run: _Run, pipeline: Pipeline, progress: Progress) -> Done:
    """Start the watcher; give the function to call for each image that is done."""
    watcher.start(progress.share, run.writer.count - progress.total, pipeline.images.loader)
    return partial(watcher.image_done, classifier=run.classifier)
