"""Writing a store in several processes: missing shards first, then failed images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mmengine.logging import print_log

from dap.files import locked
from dap.images.labelled_images import Entry
from dap.progress import Progress
from dap.ranks import Ranks
from dap.store.reader import PseudoBoxStore
from dap.store.statistics import summary_line
from dap.store.survey import survey
from dap.store.writer import StoreWriter

from .execution import Execution
from .health import Health, refuse_too_many, too_many
from .verdict import log_verdict, verdict

Record = Mapping[str, Any]  # of an image, as :meth:`StoreWriter.write` takes it
FailedImages = dict[int, list[int]]  # shard → rows of images that could not be used
ImageDone = Callable[[Entry, Record], None]  # called for each computed image


class Computed(NamedTuple):
    """An image whose record has been computed.

    Attributes:
        entry: The image.
        readable: Whether the file could be read.
        record: The record of the image.
    """

    entry: Entry
    readable: bool
    record: Record


class RecordSource(Protocol):
    """Computes the records of images.

    Attributes:
        window: Number of images that are computed together.
        one_by_one: Whether each image is computed separately, so that its bits do not depend on
            other images.
    """

    window: int
    one_by_one: bool

    def records(self, groups: Sequence[Sequence[int]]) -> Iterator[Computed]:
        """Compute the records of some groups of images, in order.

        Args:
            groups: Indices of images; images of one group may be computed together.
        """


class StoreRun:
    """Writes a store in one process or several; each process creates its own object.

    Args:
        ranks: The processes.
        writer: Writer of the store.
        execution: How to carry out the run.
    """

    def __init__(self, ranks: Ranks, writer: StoreWriter, execution: Execution) -> None:
        self.ranks, self.writer, self.execution = ranks, writer, execution

    def work(self) -> tuple[list[int], FailedImages]:
        """Return the missing shards and the images to try again; to be called in one process."""
        missing = self.writer.begin()
        retry_all = self.execution.retry_failed
        if not missing and not retry_all and not self.writer.is_finished(self.execution.coco):
            # The earlier run ended because too many images failed.
            failed, _ = self.writer.failures()
            retry_all = too_many(failed, self.writer.count, self.execution.max_bad_fraction)
        return missing, self.writer.failed_images(temporary_only=not retry_all)

    def compute(
        self,
        source: RecordSource,
        missing: list[int],
        failed: FailedImages,
        early: Mapping[int, Computed] | None = None,
        on_start: Callable[[Progress], ImageDone | None] | None = None,
    ) -> None:
        """Compute and write what :meth:`work` returned, and retry temporary failures.

        Args:
            source: Computes the images.
            missing: Numbers of the missing shards.
            failed: Images that are tried again.
            early: Images that have been computed already, by index.
            on_start: Called once before the first image of the missing shards; returns the function
                to call for each computed image, or None.
        """
        self._compute_missing(source, missing, early or {}, on_start)
        self._compute_failed(source, failed)
        self.ranks.wait()
        # A disk that did not answer may answer now.
        self._compute_failed(
            source, self.ranks.on_first_rank(lambda: self._temporarily_failed(failed))
        )
        self.ranks.wait()

    def finish(self) -> dict[str, Any]:
        """Complete the store, and return its summary; the first process writes derived files."""
        summary, finished = self.ranks.on_first_rank(self._conclude)
        print_log(f"{self.writer.folder}: {summary_line(summary)}", logger="current")
        if self.ranks.rank == 0:
            if not finished:
                self.writer.write_derived(summary, self.execution.coco)
            store = PseudoBoxStore(self.writer.folder, verify=False)
            log_verdict(verdict(survey(store), summary))
        result: dict[str, Any] = summary
        return result

    def _temporarily_failed(self, retried: FailedImages) -> FailedImages:
        """Return images that failed for a temporary reason, without those retried already."""
        failed = self.writer.failed_images(temporary_only=True)
        new = {shard: {*rows} - {*retried.get(shard, ())} for shard, rows in failed.items()}
        return {shard: sorted(rows) for shard, rows in new.items() if rows}

    def _compute_missing(
        self,
        source: RecordSource,
        missing: list[int],
        early: Mapping[int, Computed],
        on_start: Callable[[Progress], ImageDone | None] | None,
    ) -> None:
        """Compute and write the missing shards of this rank, in order."""
        writer = self.writer
        groups = _groups(missing, writer, source)[self.ranks.rank :: self.ranks.size]
        to_write = {*missing}
        share = [shard for group in groups for shard in group if shard in to_write]
        progress = Progress(writer.images_of(share), writer.images_of(missing), self.ranks.size)
        image_done = None if on_start is None else on_start(progress)
        health = Health(self.execution.max_bad_fraction, writer.folder)
        stream = source.records(
            [[i for shard in group for i in writer.indices(shard) if i not in early]
             for group in groups]
        )  # fmt: skip
        for shard in (shard for group in groups for shard in group):
            computed = [early[i] if i in early else next(stream) for i in writer.indices(shard)]
            if shard not in to_write:
                continue
            for image in computed:
                health.add(image.entry.path, image.readable, image.record)
                progress.step()
                if image_done is not None:
                    image_done(image.entry, image.record)
            health.delay(partial(writer.write, shard, [image.record for image in computed]))
            health.write_delayed()
        health.write_delayed(at_end=True)
        health.report()
        progress.close()

    def _compute_failed(self, source: RecordSource, failed: FailedImages) -> None:
        """Retry failed images, and rewrite the shards of this rank that hold them."""
        share = list(failed.items())[self.ranks.rank :: self.ranks.size]
        if share:
            count = sum(len(rows) for _, rows in share)
            print_log(f"failed images that are tried again: {count}", logger="current")
        starts = [self.writer.indices(shard).start for shard, _ in share]
        stream = source.records(
            [[start + row for row in rows] for start, (_, rows) in zip(starts, share, strict=True)]
        )
        for shard, rows in share:
            self.writer.replace(shard, {row: next(stream).record for row in rows})

    def _conclude(self) -> tuple[dict[str, Any], bool]:
        """Return the summary, and whether all files of the run are written."""
        summary = self.writer.finished_summary(self.execution.coco)
        if summary is not None:
            return summary, True
        failed, example = self.writer.failures()
        limit = self.execution.max_bad_fraction
        refuse_too_many(failed, self.writer.count, limit, example, self.writer.folder)
        return self.writer.conclude(), False


@contextmanager
def locked_by_first(ranks: Ranks, folder: Path) -> Iterator[None]:
    """Lock the folder of a run; the first process holds the lock for all.

    Raises:
        RuntimeError: If another run holds the lock.
        OSError: If the lock file cannot be written.
    """
    lock = locked(folder / ".lock")
    ranks.on_first_rank(lock.__enter__)
    try:
        yield
    finally:
        if ranks.rank == 0:
            lock.__exit__(None, None, None)


def _groups(missing: list[int], writer: StoreWriter, source: RecordSource) -> list[list[int]]:
    """Group shards that are computed together, so that batches are full.

    If the bits of an image depend on its batch, a group is computed as a whole even if some of its
    shards exist, so that batches do not depend on the moment at which a run was killed.
    """
    size = 1 if source.one_by_one else max(1, source.window // writer.shard_size)
    firsts = sorted({shard // size * size for shard in missing})
    return [list(range(first, min(first + size, writer.shards))) for first in firsts]
