"""Reading images in worker processes that may die or hang without stopping the run.

Not torch's DataLoader, for two reasons. Its handler of SIGCHLD raises the death of a worker
wherever the main process happens to be: in the middle of the computation for another image. And
it does not tell which image a worker was at.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import cycle
from multiprocessing.connection import wait
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, BinaryIO, NamedTuple

import cv2
import torch

from .image_files import TEMPORARY
from .images import Entry, LabelledImages, Sample

CHUNK = 8  # images that a worker hands over at once
PREFETCH = 2  # chunks per worker that are asked for ahead, at least
AHEAD_BYTES = 3 << 29  # of images that are asked for ahead beyond that
POLL = 1.0  # seconds between looks at a worker that says nothing


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


class _Task(NamedTuple):
    """A chunk to read: its place in the order, and which images."""

    number: int
    indices: list[int]


class _Read(NamedTuple):
    """One image of a chunk as a worker reports it; the pixels travel beside this."""

    entry: Entry
    shape: tuple[int, ...] | None
    error: str | None


class _WorkerLostError(Exception):
    """A worker has died or hangs; the message is the reason that an image gets."""


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
        self.workers: list[_Worker] = []
        self.num_workers = min(num_workers, self.count)
        # Chunks that a worker may be asked for ahead.
        self.prefetch = max(PREFETCH, -(-ahead // max(1, self.size * self.num_workers)))
        self.taken_chunks = self.taken_bytes = 0

    def next_chunk(self) -> list[Sample] | None:
        """Wait for the next chunk in the order; None behind the last."""
        if self.delivered == self.count:
            return None
        while len(self.workers) < self.num_workers:
            self.workers.append(_Worker(self.images, self.prefetch))
        self._step(0)
        while self.delivered not in self.finished:
            self._step(POLL)
        self.delivered += 1
        self._ask()
        return self.finished.pop(self.delivered - 1)

    def close(self) -> None:
        """Leave no process behind."""
        for worker in self.workers:
            worker.close()

    def _step(self, seconds: float) -> None:
        """Take what is finished, after waiting for it; replace lost workers; ask for more."""
        self._ask()
        wait([source for worker in self.workers for source in worker.sources], seconds)
        for place, worker in enumerate(self.workers):
            try:
                self._take_all(worker)
            except _WorkerLostError:
                self._replace(place)
        self._ask()

    def _ask(self) -> None:
        """Ask for the chunks of the window, each of the worker with the least to do."""
        end = min(self.count, self.delivered + self._most_ahead())
        while self.asked < end:
            start = self.asked * self.size
            chunk = list(self.indices[start : start + self.size])
            worker = min(self.workers, key=lambda worker: len(worker.tasks))
            worker.ask(_Task(self.asked, chunk))
            self.asked += 1

    def _most_ahead(self) -> int:
        """Number of chunks that may be read ahead, by the bytes of those so far in the mean."""
        least, most = (count * self.num_workers for count in (PREFETCH, self.prefetch))
        if not self.taken_bytes:
            return least
        return max(least, min(most, AHEAD_BYTES * self.taken_chunks // self.taken_bytes))

    def _take_all(self, worker: _Worker) -> None:
        while (taken := worker.take(self.timeout, self.pin_memory)) is not None:
            task, samples = taken
            self.finished[task.number] = samples
            self.taken_chunks += 1
            self.taken_bytes += sum(s.image.numel() for s in samples if s.image is not None)

    def _replace(self, place: int) -> None:
        """Read the chunk that a worker was lost at image by image, and go on with a new worker."""
        lost = self.workers[place]
        lost.close()
        self.workers[place] = worker = _Worker(self.images, self.prefetch)
        tasks = list(lost.tasks)
        for task in tasks[1:]:  # not begun
            worker.ask(task)
        for task in tasks[:1]:
            self.finished[task.number] = [self._read_alone(index) for index in task.indices]

    def _read_alone(self, index: int) -> Sample:
        worker = _Worker(self.images, 1)
        try:
            worker.ask(_Task(0, [index]))
            while (taken := worker.take(self.timeout, self.pin_memory)) is None:
                wait(worker.sources, POLL)
            return taken[1][0]
        except _WorkerLostError as error:
            return Sample(self.images.entry(index), None, str(error))
        finally:
            worker.close()


class _Worker:
    """One process that reads chunks in the order in which it is asked for them.

    Pixels come in files in memory, one for each chunk that may be on its way. They are kept and
    filled again: to allocate them anew takes the main process four times as long as to copy them.

    Args:
        images: The data set.
        prefetch: Chunks that it may be asked for ahead.
    """

    def __init__(self, images: LabelledImages, prefetch: int) -> None:
        context = multiprocessing.get_context()
        self.connection, theirs = context.Pipe()
        self.tasks: deque[_Task] = deque()
        self.beat = context.RawValue("d", time.monotonic())  # when it last began an image
        serving = (images, theirs, self.beat, prefetch)
        self.process = context.Process(target=_serve, args=serving, daemon=True)
        self.process.start()
        theirs.close()  # so that its death ends the connection
        self.files = [_memory_file() for _ in range(prefetch)]
        self.next_file = cycle(self.files)
        with suppress(OSError):  # it has died: `take` will say so
            for file in self.files:
                send_handle(self.connection, file.fileno(), self.process.pid)

    @property
    def sources(self) -> list[Any]:
        """What to wait for: a message, or the end of the process."""
        return [self.connection, self.process.sentinel]

    def ask(self, task: _Task) -> None:
        """Have a chunk read, of at most ``prefetch`` at a time."""
        if not self.tasks:
            self.beat.value = time.monotonic()
        self.tasks.append(task)
        with suppress(OSError):
            self.connection.send(task.indices)

    def take(self, timeout: float, pin_memory: bool) -> tuple[_Task, list[Sample]] | None:
        """Take a finished chunk, if there is one.

        Raises:
            _WorkerLostError: If the process has died, or is at one image for too long.
            RuntimeError: If the data set raised an error in the process.
        """
        message = self._receive()
        if isinstance(message, str):
            raise RuntimeError(f"an error in a process that reads images:\n{message}")
        if message is not None:
            samples = _cut(message, next(self.next_file), pin_memory)
            return self.tasks.popleft(), samples
        if not self.process.is_alive():
            raise _WorkerLostError(self._death())
        if self.tasks and time.monotonic() - self.beat.value > timeout:
            raise _WorkerLostError(f"{TEMPORARY}the reading did not finish within {timeout:g} s")
        return None

    def close(self) -> None:
        """End the process, whatever it is at: it only reads, so nothing is lost."""
        self.process.kill()
        self.process.join(5 * POLL)  # one in the kernel on a dead disk cannot be waited for
        self.connection.close()
        for file in self.files:
            file.truncate(0)  # processes that were forked meanwhile hold it open
            file.close()

    def _receive(self) -> list[_Read] | str | None:
        try:
            return self.connection.recv() if self.connection.poll() else None
        except (OSError, EOFError):
            self.process.join(POLL)
            if self.process.is_alive():
                raise
            raise _WorkerLostError(self._death()) from None

    def _death(self) -> str:
        code = self.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        # SIGKILL is how the system ends processes when memory runs out, maybe that of another one.
        mark = TEMPORARY if code == -signal.SIGKILL else ""
        return f"{mark}the process that read it died ({how})"


def _cut(message: list[_Read], file: BinaryIO, pin_memory: bool) -> list[Sample]:
    """Copy the pixels of a chunk into one piece of memory and cut it into images."""
    sizes = [math.prod(read.shape) if read.shape else 0 for read in message]
    flat = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=pin_memory)
    rest, at = flat.numpy().data, 0
    while at < len(flat):  # a call reads 2 GB at most
        at += os.preadv(file.fileno(), [rest[at:]], at)
    return [
        Sample(read.entry, part.view(read.shape) if read.shape else None, read.error)
        for read, part in zip(message, flat.split(sizes), strict=True)
    ]


def _serve(images: LabelledImages, connection: Any, beat: ctypes.c_double, prefetch: int) -> None:
    """Read what is asked for, until the main process ends this one."""
    end_with_parent()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    files = [os.fdopen(recv_handle(connection), "r+b") for _ in range(prefetch)]
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the main process is gone
        for file in cycle(files):
            indices = connection.recv()
            connection.send(_read_chunk(images, indices, file, beat))


def _read_chunk(
    images: LabelledImages, indices: list[int], file: BinaryIO, beat: ctypes.c_double
) -> list[_Read] | str:
    """Read a chunk into a file; give what is in there, or the traceback of an error."""
    try:
        file.seek(0)
        message = [_read(images, index, file, beat) for index in indices]
        file.truncate()
    except Exception:  # noqa: BLE001 - raised again in the main process
        return traceback.format_exc()
    return message


def _read(images: LabelledImages, index: int, file: BinaryIO, beat: ctypes.c_double) -> _Read:
    beat.value = time.monotonic()
    entry, image, error = images[index]
    if image is None:
        return _Read(entry, None, error)
    file.write(image.contiguous().numpy().data)
    return _Read(entry, tuple(image.shape), error)


def _memory_file() -> BinaryIO:
    """A file without a name, in memory but not of /dev/shm: containers often have 64 MB of that."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("images"), "r+b")
    return tempfile.TemporaryFile()


def end_with_parent() -> None:
    """Have this process end soon after its parent, even if the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL)
    os._exit(1)
