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

POLL = 1.0  # seconds between looks at a worker that says nothing


class Task(NamedTuple):
    """A chunk to read: its place in the order, and which images."""

    number: int
    indices: list[int]


class _Read(NamedTuple):
    """One image of a chunk as a worker reports it; the pixels travel beside this."""

    entry: Entry
    shape: tuple[int, ...] | None
    error: str | None


class WorkerLostError(Exception):
    """A worker has died or hangs; the message is the reason that an image gets."""


class ReadingWorker:
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
        self.tasks: deque[Task] = deque()
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

    def ask(self, task: Task) -> None:
        """Have a chunk read, of at most ``prefetch`` at a time."""
        if not self.tasks:
            self.beat.value = time.monotonic()
        self.tasks.append(task)
        with suppress(OSError):
            self.connection.send(task.indices)

    def take(self, timeout: float, pin_memory: bool) -> tuple[Task, list[Sample]] | None:
        """Take a finished chunk, if there is one.

        Raises:
            WorkerLostError: If the process has died, or is at one image for too long.
            RuntimeError: If the data set raised an error in the process.
        """
        message = self._receive()
        if isinstance(message, str):
            raise RuntimeError(f"an error in a process that reads images:\n{message}")
        if message is not None:
            samples = _cut(message, next(self.next_file), pin_memory)
            return self.tasks.popleft(), samples
        if not self.process.is_alive():
            raise WorkerLostError(self._death())
        if self.tasks and time.monotonic() - self.beat.value > timeout:
            raise WorkerLostError(f"{TEMPORARY}the reading did not finish within {timeout:g} s")
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
            raise WorkerLostError(self._death()) from None

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
    """Read the requested images until the main process ends this one."""
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
    """Read a chunk into a file; return its entries, or the traceback of an error."""
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
