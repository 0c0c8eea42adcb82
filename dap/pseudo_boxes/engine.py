"""Step 2 for a whole data set: classifier + labelled images → store, COCO json, summary."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.logging import print_log
from torch import nn

from dap._malloc import tune_malloc
from dap.files import locked

from .classifier import CamClassifier, evaluating
from .health import Health, refuse_too_many, too_many
from .images import Entry, LabelledImages
from .progress import Progress
from .ranks import Ranks, all_ranks
from .reading import read_in_order
from .run import describe_run
from .settings import Execution, PseudoBoxSettings
from .statistics import summary_line
from .store import PseudoBoxStore
from .verdict import log_verdict
from .window import WindowMaps, window_records, windows
from .writing import StoreWriter

WINDOW_CPU, WINDOW_GPU = 32, 256  # images in a row that are batched by shape, within a shard
WINDOW_BYTES = 1 << 29  # of decoded images
AHEAD = 4  # windows whose boxes are in the making
T = TypeVar("T")
Record = Mapping[str, Any]


class Watcher(Protocol):
    """Looks at images of a run while it goes on."""

    def start(self, images: int, there: int, loader: LoadImageFromFile) -> None:
        """Hear what will come.

        Args:
            images: How many images this process will do.
            there: How many all processes had done before.
            loader: How images are opened and decoded.
        """

    def look(self, entry: Entry, record: Record, classifier: CamClassifier) -> None:
        """Look at an image that is done.

        Args:
            entry: Which one.
            record: What has become of it, as :class:`StoreWriter` writes it.
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
    settings). When ``torch.distributed`` is initialised, all processes share the images. The same
    run gives the same bytes with any number of processes, however often it is killed and started
    again: it goes on with the shards that are missing.

    An image that cannot be read, or whose map is not finite, is left out, counted and named; it
    stops nothing, unless there are too many of them or the maps of 50 in a row cannot be computed.
    An image with several classes gets boxes for each class, merged class by class.

    Args:
        model: A built mmpretrain classifier with its weights, on the device to work on.
        dataset: A built mmpretrain dataset with labels: the training split.
        out_dir: Folder to write, made if need be. A finished run of the same classifier, images
            and settings in it is kept as it is, an unfinished one goes on; any other is refused.
        settings: Views, thresholds, NMS and rule. Defaults to the paper's.
        checkpoint: Where the weights came from, for the record.
        execution: How to carry it out.
        watcher: Looks at the images of the first process as they are done.

    Returns:
        The content of ``summary.json``.

    Raises:
        ValueError: If no map can be had from the classifier, the data set has no labels or other
            classes, or the folder holds another run.
        RuntimeError: If too many images cannot be used, the device fails or is out of memory, the
            computation failed for 50 images in a row, or another process writes the folder.
        OSError: If the folder cannot be written, or is full; what is finished stays.
    """
    settings, execution = settings or PseudoBoxSettings(), execution or Execution()
    classifier = CamClassifier(model)
    images = LabelledImages(dataset)
    described = describe_run(classifier, images, settings, checkpoint, execution.shard_size)
    writer = StoreWriter(Path(out_dir), described)
    with all_ranks() as ranks, _alone(ranks, writer.folder):
        missing = ranks.first(lambda: _begin(writer, execution))
        if missing:
            classifier.speed_up()
            if classifier.device.type == "cpu":
                tune_malloc()
            own = missing[ranks.rank :: ranks.size]
            progress = Progress(writer.images_of(own), writer.images_of(missing), ranks.size)
            watching = watcher if ranks.rank == 0 else None
            if watching is not None:
                there = writer.count - progress.total
                watching.start(progress.share, there, images.loader)

            def done(entry: Entry, record: Record) -> None:
                progress.step()
                if watching is not None:
                    watching.look(entry, record, classifier)

            _compute_shards(own, done, classifier, images, settings, execution, writer)
            progress.close()
            ranks.wait()
        summary = ranks.first(lambda: _finish(writer, execution.max_bad_fraction))
        print_log(f"{writer.folder}: {summary_line(summary)}", logger="current")
        if ranks.rank == 0:
            log_verdict(PseudoBoxStore(writer.folder, verify=False), summary)
    return summary


@contextmanager
def _alone(ranks: Ranks, folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder; the first process holds the lock for all."""
    lock = locked(folder / ".lock")
    ranks.first(lock.__enter__)
    try:
        yield
    finally:
        if ranks.rank == 0:
            lock.__exit__(None, None, None)


def _begin(writer: StoreWriter, execution: Execution) -> list[int]:
    missing = writer.begin(execution.retry_failed)
    if not missing and not writer.is_finished():
        # A run that ended because of its failures tries those again.
        failed, _ = writer.failures()
        if too_many(failed, writer.count, execution.max_bad_fraction):
            missing = writer.begin(retry_failed=True)
    return missing


def _finish(writer: StoreWriter, max_bad_fraction: float) -> dict[str, Any]:
    summary = writer.finished_summary()
    if summary is not None:
        return summary
    failed, first = writer.failures()
    refuse_too_many(failed, writer.count, max_bad_fraction, first, writer.folder)
    return writer.finish()


def _compute_shards(
    shards: list[int],
    done: Callable[[Entry, Record], None],
    classifier: CamClassifier,
    images: LabelledImages,
    settings: PseudoBoxSettings,
    execution: Execution,
    writer: StoreWriter,
) -> None:
    """Compute and write this rank's shards, in their order."""
    sizes = [len(writer.indices(shard)) for shard in shards]
    health = Health(execution.max_bad_fraction, writer.folder)
    numbers = iter(shards)
    records: list[dict[str, Any]] = []
    with evaluating(classifier.model):
        for found, last in _records(shards, sizes, classifier, images, settings, execution, writer):
            for image, record in found:
                health.add(image.entry.path, image.readable, record)
                records.append(record)
                done(image.entry, record)
            if last:
                health.hold(next(numbers), records)
                records = []
            for shard, held in health.release():
                writer.write(shard, held)
    for shard, held in health.release(at_end=True):
        writer.write(shard, held)
    health.report()


def _records(
    shards: list[int],
    sizes: list[int],
    classifier: CamClassifier,
    images: LabelledImages,
    settings: PseudoBoxSettings,
    execution: Execution,
    writer: StoreWriter,
) -> Iterator[tuple[list[Any], bool]]:
    """Boxes of all images of these shards, window by window, with whether a shard ends.

    On a GPU three things go on at a time: it computes the maps of one window, those of the one
    before are copied, and other processes make boxes of the ones before that.
    """
    on_gpu = classifier.device.type != "cpu"
    batch_size = execution.batch_size or (32 if on_gpu else 1)
    indices = list(chain.from_iterable(writer.indices(shard) for shard in shards))
    samples = read_in_order(
        images, indices, execution.num_workers, execution.read_timeout, pin_memory=on_gpu
    )
    cut = windows(samples, sizes, WINDOW_GPU if on_gpu else WINDOW_CPU, WINDOW_BYTES)
    if not on_gpu:
        # One image a thread is faster than two threads an image, and the bits do not depend on it.
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads, initializer=_single_threaded) as pool:
            for window, last in cut:
                maps = WindowMaps(window, classifier, settings, batch_size, pool)
                yield window_records(maps.fetch(), settings), last
        return
    started = ((WindowMaps(window, classifier, settings, batch_size), last) for window, last in cut)
    fetched = ((maps.fetch(), last) for maps, last in _behind(started, 1))
    workers = max(1, execution.num_workers // 4)
    with ProcessPoolExecutor(workers, initializer=_single_threaded) as makers:
        futures = (
            (makers.submit(window_records, window, settings), last) for window, last in fetched
        )
        for future, last in _behind(futures, AHEAD):
            yield future.result(), last


def _behind(items: Iterable[T], count: int) -> Iterator[T]:
    """Pass items on when so many more have been made."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _single_threaded() -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
