"""Step 2 for a whole data set: classifier + labelled images → store, COCO json, summary."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from mmcv.transforms import LoadImageFromFile
from mmengine.logging import print_log
from torch import nn

from dap._malloc import tune_malloc
from dap.files import locked

from .classifier import CamClassifier, evaluating
from .devices import computing_on
from .early_verdict import EarlyRecords, early_verdict
from .health import Health, refuse_too_many, too_many
from .images import Entry, LabelledImages
from .pipeline import Pipeline, Record
from .progress import Progress
from .ranks import Ranks, all_ranks
from .run import describe_process, describe_run
from .settings import Execution, PseudoBoxSettings
from .shared_images import shared_images
from .statistics import summary_line
from .store import PseudoBoxStore
from .survey import survey
from .verdict import log_verdict, verdict
from .writing import StoreWriter


class Watcher(Protocol):
    """Is shown the images of a run while it goes on."""

    def start(self, images: int, there: int, loader: LoadImageFromFile) -> None:
        """Called once before the first image.

        Args:
            images: Number of images that this process will do.
            there: Number of images that all processes had done before.
            loader: How images are opened and decoded.
        """

    def look(self, entry: Entry, record: Record, classifier: CamClassifier) -> None:
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
        watcher: Is shown the images of the first process as they are done.

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
        with _locked(ranks, run.writer.folder):
            run.compute(dataset, watcher)
            return run.finish()


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

        self.described = self.ranks.first(described)
        self.ranks.require_same(process, "Give all of them the same command, files and versions")
        self.writer = StoreWriter(folder, self.described)

    def compute(self, dataset: Any, watcher: Watcher | None) -> None:
        """Compute and write what is missing; try again what failed for a while only."""
        missing, failed = self.ranks.first(self._work)
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
            self._compute_missing(missing, early, pipeline, watcher)
            self._compute_failed(failed, pipeline)
            self.ranks.wait()
            # Disks that did not answer may do so now.
            self._compute_failed(
                self.ranks.first(lambda: self._temporarily_failed(failed)), pipeline
            )
            self.ranks.wait()
        if self.ranks.rank == 0 and not pipeline.one_by_one:
            print_log(f"maps were computed with {pipeline.mean_batch()}", logger="current")

    def finish(self) -> dict[str, Any]:
        """Complete the store, for all processes; write what is derived from it, in the first."""
        summary, finished = self.ranks.first(self._concluded)
        print_log(f"{self.writer.folder}: {summary_line(summary)}", logger="current")
        if self.ranks.rank == 0:
            if not finished:
                self.writer.write_derived(summary, self.execution.coco)
            store = PseudoBoxStore(self.writer.folder, verify=False)
            log_verdict(verdict(survey(store), summary))
        result: dict[str, Any] = summary
        return result

    def _work(self) -> tuple[list[int], dict[int, list[int]]]:
        """Missing shards, and the rows of images that failed and are tried again, by shard."""
        missing = self.writer.begin()
        again = self.execution.retry_failed
        if not missing and not again and not self.writer.is_finished(self.execution.coco):
            # A run that ended because of its failures tries those again.
            failed, _ = self.writer.failures()
            again = too_many(failed, self.writer.count, self.execution.max_bad_fraction)
        return missing, self.writer.failed_images(temporary_only=not again)

    def _temporarily_failed(self, tried: dict[int, list[int]]) -> dict[int, list[int]]:
        """Images that failed for a temporary reason and have been tried only once."""
        failed = self.writer.failed_images(temporary_only=True)
        left = {shard: sorted({*rows} - {*tried.get(shard, ())}) for shard, rows in failed.items()}
        return {shard: rows for shard, rows in left.items() if rows}

    def _compute_missing(
        self,
        missing: list[int],
        early: EarlyRecords,
        pipeline: Pipeline,
        watcher: Watcher | None,
    ) -> None:
        """Compute and write this rank's share of the missing shards, in their order."""
        writer = self.writer
        groups = _groups(missing, writer, pipeline)[self.ranks.rank :: self.ranks.size]
        wanted = {*missing}
        share = [shard for group in groups for shard in group if shard in wanted]
        progress = Progress(writer.images_of(share), writer.images_of(missing), self.ranks.size)
        done = _report_to(progress, watcher if self.ranks.rank == 0 else None, self, pipeline)
        health = Health(self.execution.max_bad_fraction, writer.folder)
        stream = pipeline.records(
            [[i for shard in group for i in writer.indices(shard) if i not in early]
             for group in groups]
        )  # fmt: skip
        for shard in (shard for group in groups for shard in group):
            computed = [early[i] if i in early else next(stream) for i in writer.indices(shard)]
            if shard not in wanted:
                continue
            for image, record in computed:
                health.add(image.entry.path, image.readable, record)
                done(image.entry, record)
            health.hold(partial(writer.write, shard, [record for _, record in computed]))
            health.release()
        health.release(at_end=True)
        health.report()
        progress.close()

    def _compute_failed(self, failed: dict[int, list[int]], pipeline: Pipeline) -> None:
        """Try images again that failed; write the shards of this rank's share anew."""
        share = list(failed.items())[self.ranks.rank :: self.ranks.size]
        if share:
            count = sum(len(rows) for _, rows in share)
            print_log(f"{count} images that failed are tried again", logger="current")
        starts = [self.writer.indices(shard).start for shard, _ in share]
        stream = pipeline.records(
            [[start + row for row in rows] for start, (_, rows) in zip(starts, share, strict=True)]
        )
        for shard, rows in share:
            self.writer.replace(shard, {row: next(stream)[1] for row in rows})

    def _concluded(self) -> tuple[dict[str, Any], bool]:
        """The summary, and whether all files of the run are written."""
        summary = self.writer.finished_summary(self.execution.coco)
        if summary is not None:
            return summary, True
        failed, first = self.writer.failures()
        limit = self.execution.max_bad_fraction
        refuse_too_many(failed, self.writer.count, limit, first, self.writer.folder)
        return self.writer.conclude(), False


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


def _groups(missing: list[int], writer: StoreWriter, pipeline: Pipeline) -> list[list[int]]:
    """Shards that are computed together, so that batches are full.

    Where the bits of an image depend on the batch it is in, a group is computed as a whole even
    if some of its shards exist: batches must not depend on when a run was killed.
    """
    size = 1 if pipeline.one_by_one else max(1, pipeline.window // writer.shard_size)
    firsts = sorted({shard // size * size for shard in missing})
    return [list(range(first, min(first + size, writer.shards))) for first in firsts]


def _report_to(
    progress: Progress, watcher: Watcher | None, run: _Run, pipeline: Pipeline
) -> Callable[[Entry, Record], None]:
    """The function to call for each image that is done."""
    if watcher is not None:
        done_before = run.writer.count - progress.total
        watcher.start(progress.share, done_before, pipeline.images.loader)

    def done(entry: Entry, record: Record) -> None:
        progress.step()
        if watcher is not None:
            watcher.look(entry, record, run.classifier)

    return done


@contextmanager
def _locked(ranks: Ranks, folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder; the first process holds the lock for all."""
    lock = locked(folder / ".lock")
    ranks.first(lock.__enter__)
    try:
        yield
    finally:
        if ranks.rank == 0:
            lock.__exit__(None, None, None)
