"""Reading images in worker processes that may die or hang without stopping the run.

Not torch's DataLoader, for two reasons. Its handler of SIGCHLD raises the death of a worker
wherever the main process happens to be: in the middle of the computation for another image. And
it does not tell which image a worker was at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait

import torch

from .labelled_images import LabelledImages, Sample
from .reading_worker import POLL, ReadingWorker, Task, WorkerLostError

CHUNK = 8  # images that a worker hands over at once
PREFETCH = 2  # chunks per worker that are asked for ahead, at least
AHEAD_BYTES = 3 << 29  # of images that are asked for ahead beyond that


def read_in_order(
    images: LabelledImages,
    indices: Sequence[int],
    num_workers: int,
    timeout: float = 120.0,
    pin_memory: bool = False,
    ahead: int = 0,
) -> Iterator[Sample]:
    """Read images in worker processes.

    When a worker dies (a crash in a decoder, memory that runs out) or does not finish an image in
    time, the images that it was to hand over are tried again, each in a process of its own. One
    that fails again has this as its error; the run goes on.

    Args:
        images: The data set.
        indices: Which of its images, in this order.
        num_workers: Processes that read. 0: this one, where nothing guards against a crash.
        timeout: Seconds that reading one image may take in a worker.
        pin_memory: Whether to put images in page-locked memory, from which they are copied to a
            GPU in the background. Without a GPU it makes no difference.
        ahead: Images that workers read while nothing is taken from here, as far as they fit into
            ``AHEAD_BYTES``. A few are always read ahead.

    Yields:
        A sample per index. What the data set raises, other than for an unreadable file, is raised
        as RuntimeError with the traceback of the worker.
    """
    pin_memory = pin_memory and torch.cuda.is_available()
    if num_workers == 0:
        for index in indices:
            sample = images[index]
            if pin_memory and sample.image is not None:
                sample = sample._replace(image=sample.image.pin_memory())
            yield sample
        return
    pool = _Pool(images, indices, num_workers, timeout, pin_memory, ahead)
    try:
        while (chunk := pool.next_chunk()) is not None:
            yield from chunk
    finally:
        pool.close()


class _Pool:
    """Worker processes with the chunks that they read."""

    def __init__(
        self,
        images: LabelledImages,
        indices: Sequence[int],
        num_workers: int,
        timeout: float,
        pin_memory: bool,
        ahead: int,
    ) -> None:
        self.images, self.indices = images, indices
        self.timeout, self.pin_memory = timeout, pin_memory
        self.size = max(1, min(CHUNK, -(-len(indices) // num_workers)))
        self.count = -(-len(indices) // self.size)
        self.asked = self.delivered = 0
        self.finished: dict[int, list[Sample]] = {}
        self.workers: list[ReadingWorker] = []
        self.num_workers = min(num_workers, self.count)
        # Chunks that a worker may be asked for ahead.
        self.prefetch = max(PREFETCH, -(-ahead // max(1, self.size * self.num_workers)))
        self.taken_chunks = self.taken_bytes = 0

    def next_chunk(self) -> list[Sample] | None:
        """Wait for the next chunk in order; None after the last."""
        if self.delivered == self.count:
            return None
        while len(self.workers) < self.num_workers:
            self.workers.append(ReadingWorker(self.images, self.prefetch))
        self._step(0)
        while self.delivered not in self.finished:
            self._step(POLL)
        self.delivered += 1
        self._ask()
        return self.finished.pop(self.delivered - 1)

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers:
            worker.close()

    def _step(self, seconds: float) -> None:
        """Wait for finished chunks and take them; replace lost workers; request more."""
        self._ask()
        wait([source for worker in self.workers for source in worker.sources], seconds)
        for place, worker in enumerate(self.workers):
            try:
                self._take_all(worker)
            except WorkerLostError:
                self._replace(place)
        self._ask()

    def _ask(self) -> None:
        """Ask for the chunks of the window, each of the worker with the least to do."""
        end = min(self.count, self.delivered + self._most_ahead())
        while self.asked < end:
            start = self.asked * self.size
            chunk = list(self.indices[start : start + self.size])
            worker = min(self.workers, key=lambda worker: len(worker.tasks))
            worker.ask(Task(self.asked, chunk))
            self.asked += 1

    def _most_ahead(self) -> int:
        """Number of chunks that may be read ahead, by the bytes of those so far in the mean."""
        least, most = (count * self.num_workers for count in (PREFETCH, self.prefetch))
        if not self.taken_bytes:
            return least
        return max(least, min(most, AHEAD_BYTES * self.taken_chunks // self.taken_bytes))

    def _take_all(self, worker: ReadingWorker) -> None:
        while (taken := worker.take(self.timeout, self.pin_memory)) is not None:
            task, samples = taken
            self.finished[task.number] = samples
            self.taken_chunks += 1
            self.taken_bytes += sum(s.image.numel() for s in samples if s.image is not None)

    def _replace(self, place: int) -> None:
        """Read the chunk that a worker was lost at image by image, and go on with a new worker."""
        lost = self.workers[place]
        lost.close()
        self.workers[place] = worker = ReadingWorker(self.images, self.prefetch)
        tasks = list(lost.tasks)
        for task in tasks[1:]:  # not begun
            worker.ask(task)
        for task in tasks[:1]:
            self.finished[task.number] = [self._read_alone(index) for index in task.indices]

    def _read_alone(self, index: int) -> Sample:
        worker = ReadingWorker(self.images, 1)
        try:
            worker.ask(Task(0, [index]))
            while (taken := worker.take(self.timeout, self.pin_memory)) is None:
                wait(worker.sources, POLL)
            return taken[1][0]
        except WorkerLostError as error:
            return Sample(self.images.entry(index), None, str(error))
        finally:
            worker.close()
