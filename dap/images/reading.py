"""Reading images in worker processes; a worker that dies or hangs does not stop the run.

torch's DataLoader is not used for two reasons. Its SIGCHLD handler raises the error of a dead
worker anywhere in the main process, such as during the computation of another image. And it does
not tell which image the worker was reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait

import torch

from .labelled_images import LabelledImages, Sample
from .reading_worker import POLL, ReadingWorker, Task, WorkerLostError

CHUNK = 8  # images that a worker sends at once
PREFETCH = 2  # minimum number of chunks per worker that are requested in advance
AHEAD_BYTES = 3 << 29  # limit of the bytes of images that are requested beyond that


def read_in_order(
    images: LabelledImages,
    indices: Sequence[int],
    num_workers: int,
    timeout: float = 120.0,
    pin_memory: bool = False,
    ahead: int = 0,
) -> Iterator[Sample]:
    """Read images in worker processes.

    If a worker dies (crash of a decoder, lack of memory) or exceeds the timeout, each image of its
    chunk is read again in a separate process. An image that fails again gets a sample with the
    error, and the run continues.

    Args:
        images: The data set.
        indices: Indices of the images to read, in order.
        num_workers: Number of processes that read. With 0, this process reads the images, without
            protection against crashes.
        timeout: Seconds that a worker may take to read one image.
        pin_memory: Whether to store images in page-locked memory, from which they are copied to a
            GPU asynchronously. It has no effect without a GPU.
        ahead: Number of images that workers read in advance, as far as they fit into
            ``AHEAD_BYTES``. A few are always read in advance.

    Yields:
        One sample per index.

    Raises:
        RuntimeError: If the data set raises an error other than that a file cannot be read. The
            message has the traceback of the worker.
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
    """Worker processes, and the chunks that they have read."""

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
        self.chunk_size = max(1, min(CHUNK, -(-len(indices) // num_workers)))
        self.count = -(-len(indices) // self.chunk_size)
        self.requested = self.delivered = 0  # numbers of chunks
        self.finished: dict[int, list[Sample]] = {}
        self.workers: list[ReadingWorker] = []
        self.num_workers = min(num_workers, self.count)
        # Maximum number of chunks that are requested from a worker in advance.
        self.prefetch = max(PREFETCH, -(-ahead // max(1, self.chunk_size * self.num_workers)))
        self.received_chunks = self.received_bytes = 0

    def next_chunk(self) -> list[Sample] | None:
        """Wait for the next chunk in order and return it; None after the last."""
        if self.delivered == self.count:
            return None
        while len(self.workers) < self.num_workers:
            self.workers.append(ReadingWorker(self.images, self.prefetch))
        self._step(0)
        while self.delivered not in self.finished:
            self._step(POLL)
        self.delivered += 1
        self._request()
        return self.finished.pop(self.delivered - 1)

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers:
            worker.close()

    def _step(self, seconds: float) -> None:
        """Wait for finished chunks and receive them; replace lost workers; request more chunks."""
        self._request()
        wait([source for worker in self.workers for source in worker.sources], seconds)
        for position, worker in enumerate(self.workers):
            try:
                self._receive_all(worker)
            except WorkerLostError:
                self._replace(position)
        self._request()

    def _request(self) -> None:
        """Request chunks in advance, each from the worker with the fewest tasks."""
        end = min(self.count, self.delivered + self._max_ahead())
        while self.requested < end:
            start = self.requested * self.chunk_size
            chunk = list(self.indices[start : start + self.chunk_size])
            worker = min(self.workers, key=lambda worker: len(worker.tasks))
            worker.request(Task(self.requested, chunk))
            self.requested += 1

    def _max_ahead(self) -> int:
        """Return how many chunks may be read in advance, by the mean bytes of a chunk so far."""
        least, most = (count * self.num_workers for count in (PREFETCH, self.prefetch))
        if not self.received_bytes:
            return least
        return max(least, min(most, AHEAD_BYTES * self.received_chunks // self.received_bytes))

    def _receive_all(self, worker: ReadingWorker) -> None:
        while (result := worker.receive(self.timeout, self.pin_memory)) is not None:
            task, samples = result
            self.finished[task.number] = samples
            self.received_chunks += 1
            self.received_bytes += sum(s.image.numel() for s in samples if s.image is not None)

    def _replace(self, position: int) -> None:
        """Replace a lost worker, and read each image of its current chunk in a new process."""
        lost = self.workers[position]
        lost.close()
        self.workers[position] = worker = ReadingWorker(self.images, self.prefetch)
        tasks = list(lost.tasks)
        for task in tasks[1:]:  # not begun
            worker.request(task)
        for task in tasks[:1]:
            self.finished[task.number] = [self._read_separately(index) for index in task.indices]

    def _read_separately(self, index: int) -> Sample:
        worker = ReadingWorker(self.images, 1)
        try:
            worker.request(Task(0, [index]))
            while (result := worker.receive(self.timeout, self.pin_memory)) is None:
                wait(worker.sources, POLL)
            return result[1][0]
        except WorkerLostError as error:
            return Sample(self.images.entry(index), None, str(error))
        finally:
            worker.close()
