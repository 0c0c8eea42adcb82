"""A worker process that reads images, and its handle in the main process."""

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
from contextlib import suppress
from itertools import cycle
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, BinaryIO, NamedTuple

import cv2
import torch

from .image_files import TEMPORARY
from .labelled_images import Entry, LabelledImages, Sample

POLL = 1.0  # seconds between checks of a worker that sends nothing


class Task(NamedTuple):
    """A chunk to read: its number in the order of chunks, and the indices of its images."""

    number: int
    indices: list[int]


class _Read(NamedTuple):
    """One image of a chunk as sent by a worker; the pixels are in a file in memory."""

    entry: Entry
    shape: tuple[int, ...] | None
    error: str | None


class WorkerLostError(Exception):
    """A worker has died or hangs; the message becomes the error of the image."""


class ReadingWorker:
    """A process that reads chunks in the order in which they are requested.

    It writes pixels to files in memory, one per chunk that may be requested in advance. The files
    are reused, because allocating a new one takes four times as long as copying the pixels.

    Args:
        images: The data set.
        prefetch: Maximum number of chunks that are requested in advance.
    """

    def __init__(self, images: LabelledImages, prefetch: int) -> None:
        context = multiprocessing.get_context()
        self.connection, worker_connection = context.Pipe()
        self.tasks: deque[Task] = deque()
        # Time at which the worker began to read its current image.
        self.image_started = context.RawValue("d", time.monotonic())
        arguments = (images, worker_connection, self.image_started, prefetch)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        worker_connection.close()  # so that the connection ends when the worker dies
        self.files = [_memory_file() for _ in range(prefetch)]
        self.next_file = cycle(self.files)
        with suppress(OSError):  # a dead worker is reported by `receive`
            for file in self.files:
                send_handle(self.connection, file.fileno(), self.process.pid)

    @property
    def sources(self) -> list[Any]:
        """Objects to wait for: a message, or the end of the process."""
        return [self.connection, self.process.sentinel]

    def request(self, task: Task) -> None:
        """Request a chunk; at most ``prefetch`` chunks may be requested at a time."""
        if not self.tasks:
            self.image_started.value = time.monotonic()
        self.tasks.append(task)
        with suppress(OSError):
            self.connection.send(task.indices)

    def receive(self, timeout: float, pin_memory: bool) -> tuple[Task, list[Sample]] | None:
        """Receive a finished chunk, if there is one.

        Raises:
            WorkerLostError: If the process has died, or has read one image for too long.
            RuntimeError: If the data set raised an error in the process.
        """
        message = self._message()
        if isinstance(message, str):
            raise RuntimeError(f"an error in a process that reads images:\n{message}")
        if message is not None:
            samples = _samples(message, next(self.next_file), pin_memory)
            return self.tasks.popleft(), samples
        if not self.process.is_alive():
            raise WorkerLostError(self._cause_of_death())
        if self.tasks and time.monotonic() - self.image_started.value > timeout:
            raise WorkerLostError(f"{TEMPORARY}the reading did not finish within {timeout:g} s")
        return None

    def close(self) -> None:
        """Kill the process; it only reads, so nothing is lost."""
        self.process.kill()
        self.process.join(5 * POLL)  # it may never end if a disk does not answer
        self.connection.close()
        for file in self.files:
            file.truncate(0)  # frees the memory though processes forked meanwhile keep it open
            file.close()

    def _message(self) -> list[_Read] | str | None:
        try:
            return self.connection.recv() if self.connection.poll() else None
        except (OSError, EOFError):
            self.process.join(POLL)
            if self.process.is_alive():
                raise
            raise WorkerLostError(self._cause_of_death()) from None

    def _cause_of_death(self) -> str:
        code = self.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        # The system sends SIGKILL when memory runs out, which other processes may have used up.
        mark = TEMPORARY if code == -signal.SIGKILL else ""
        return f"{mark}the process that read it died ({how})"


def _samples(message: list[_Read], file: BinaryIO, pin_memory: bool) -> list[Sample]:
    """Copy the pixels of a chunk into one tensor, and split it into images."""
    sizes = [math.prod(read.shape) if read.shape else 0 for read in message]
    flat = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=pin_memory)
    buffer, position = flat.numpy().data, 0
    while position < len(flat):  # a call reads 2 GB at most
        position += os.preadv(file.fileno(), [buffer[position:]], position)
    return [
        Sample(read.entry, part.view(read.shape) if read.shape else None, read.error)
        for read, part in zip(message, flat.split(sizes), strict=True)
    ]


def _serve(
    images: LabelledImages, connection: Any, image_started: ctypes.c_double, prefetch: int
) -> None:
    """Read the requested images until the main process ends this one."""
    end_with_parent()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    files = [os.fdopen(recv_handle(connection), "r+b") for _ in range(prefetch)]
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the main process has ended
        for file in cycle(files):
            indices = connection.recv()
            connection.send(_read_chunk(images, indices, file, image_started))


def _read_chunk(
    images: LabelledImages, indices: list[int], file: BinaryIO, image_started: ctypes.c_double
) -> list[_Read] | str:
    """Read a chunk into a file; return its entries, or the traceback of an error."""
    try:
        file.seek(0)
        message = [_read(images, index, file, image_started) for index in indices]
        file.truncate()
    except Exception:  # noqa: BLE001 - raised again in the main process
        return traceback.format_exc()
    return message


def _read(
    images: LabelledImages, index: int, file: BinaryIO, image_started: ctypes.c_double
) -> _Read:
    image_started.value = time.monotonic()
    entry, image, error = images[index]
    if image is None:
        return _Read(entry, None, error)
    file.write(image.contiguous().numpy().data)
    return _Read(entry, tuple(image.shape), error)


def _memory_file() -> BinaryIO:
    """Create a file in memory, not in /dev/shm, which has only 64 MB in many containers."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("images"), "r+b")
    return tempfile.TemporaryFile()


def end_with_parent() -> None:
    """End this process soon after its parent ends, even if the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it too, and handles it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL)
    os._exit(1)
