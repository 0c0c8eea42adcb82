"""Helpers for files: list files below a folder, read text, write files atomically, lock folders."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from .listing import FileListing
from .locks import open_locked

# Images that OpenCV reads, the default decoder of mmcv and mmdet.
IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
PARTIAL = ".partial"  # suffix of files that are being written

# Errors of file systems that cannot flush, such as some network and FUSE file systems.
_NO_FSYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


def files_below(folder: Path, suffixes: Sequence[str]) -> list[str]:
    """List all files below a folder that have certain suffixes, ignoring case.

    Files that are left out, such as hidden files and images of other kinds, are logged.

    Args:
        folder: The folder; see :class:`dap.listing.FileListing` for links and hidden names.
        suffixes: Suffixes in lower case, with the dot.

    Returns:
        Paths relative to ``folder``, with forward slashes, sorted.

    Raises:
        NotADirectoryError: If there is no such folder.
        OSError: If a folder cannot be listed.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; expected one that holds {suffixes[0]} …")
    lists_images = not set(suffixes).isdisjoint(IMAGE_SUFFIXES)
    listing = FileListing(str(folder), suffixes, IMAGE_SUFFIXES if lists_images else ())
    names = listing.files()
    listing.log()
    return names


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file; the message of an ``OSError`` starts with its path, like other errors."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise type(error)(f"{path}: cannot be read ({error.strerror}); check the path") from error


def text_lines(content: bytes, path: str | os.PathLike[str]) -> list[str]:
    """Split the content of a text file into lines; strip them, and a byte-order mark.

    Args:
        content: Content of the file.
        path: Name of the file, for errors.

    Raises:
        ValueError: If it is no text in UTF-8.
    """
    if b"\0" in content:
        raise ValueError(
            f"{path} is no text in UTF-8: it holds zero bytes, as a file in UTF-16 does (Windows "
            "Notepad's 'Unicode'). Save it as UTF-8"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is no text in UTF-8: line {line} holds the byte 0x{content[error.start]:02x}, "
            "as files in Latin-1 and other encodings do. Save it as UTF-8"
        ) from error
    return [line.strip() for line in text.splitlines()]


def split_lines(content: bytes, path: str | os.PathLike[str]) -> list[str]:
    """Like `text_lines`, without empty lines."""
    return [line for line in text_lines(content, path) if line]


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Read the non-empty lines of a text file, see `split_lines`."""
    return split_lines(read_bytes(path), path)


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """Read names, one per line; empty lines are ignored.

    Raises:
        ValueError: If there is none, or if a name is repeated.
    """
    names = read_lines(path)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if not names or repeated:
        found = f"found {repeated[0]!r} twice" if repeated else "found none"
        raise ValueError(f"{path}: expected different names, one per line, {found}")
    return names


def left_out_line(
    left_out: Sequence[dict[str, str]], shown: int = 10, what: str = "files left out"
) -> str:
    """Format a message with the number of items that were left out, and the first of them.

    Args:
        left_out: Items with ``file`` and ``reason``.
        shown: Number of items to list.
        what: Description of the items.
    """
    lines = "".join(f"\n  {item['file']}: {item['reason']}" for item in left_out[:shown])
    more = f"\n  and {len(left_out) - shown} more" if len(left_out) > shown else ""
    return f"{what}: {len(left_out)}, all of them listed in the file's info:{lines}{more}"


def output_file(path: str | os.PathLike[str]) -> Path:
    """Check the path of an output file before it is computed: it must not be a folder."""
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; expected the name of a file to write")
    return Path(path)


@contextmanager
def whole_file(path: Path, once: bool = False) -> Iterator[TextIO]:
    """Open a text file for writing under a temporary name, and rename it when it is on the disk.

    Its folder is created if necessary.

    Args:
        path: The file.
        once: Never replace an existing file: if its content is the same, it is kept; otherwise an
            error is raised.

    Raises:
        FileExistsError: If ``once`` and the file exists with other content.
        OSError: If it cannot be written; the message names the file.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with _clear_error(path, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _clear_error(path, partial):
            with open(partial, "w", encoding="utf-8") as file:
                yield file
                _sync(file)
            if not once or not path.exists():
                _rename(partial, path)
            elif partial.read_bytes() != path.read_bytes():
                raise FileExistsError(
                    f"{path} is there with other content; predictions or a training may depend on "
                    "it. Move it away, or use another name"
                )
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of any kind as :func:`whole_file` does."""
    with whole_file(path) as file:
        file.buffer.write(content)


@contextmanager
def _clear_error(path: Path, written: Path) -> Iterator[None]:
    """Explain errors that are raised while ``written`` is written, with the name ``path``."""
    try:
        yield
    except OSError as error:
        other = error.filename is not None and not written.is_relative_to(error.filename)
        if other or error.strerror is None:
            raise
        raise type(error)(
            f"{path} cannot be written ({error.strerror}). Nothing that was finished is lost: free "
            "disk space or fix the permissions of the folder, and run the same command again"
        ) from error


def _sync(file: IO[Any]) -> None:
    file.flush()
    _fsync(file.fileno(), _NO_FSYNC)


def _rename(partial: Path, path: Path) -> None:
    """Rename a file, and flush its folder so that the new name survives a power failure.

    It is no error if the folder cannot be opened or flushed, since the file itself is written.
    """
    partial.replace(path)
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EACCES, errno.EPERM):
            raise
        return
    try:
        _fsync(folder, _NO_FSYNC | {errno.EBADF})
    finally:
        os.close(folder)


def _fsync(descriptor: int, not_supported: frozenset[int]) -> None:
    """Flush to the disk; ignore errors that mean that the file system cannot flush."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in not_supported:
            raise


def remove_partial_files(folder: Path) -> None:
    """Remove partial files of killed processes from a folder."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, and remove it at the end. The lock is also released if the process ends.

    Forked processes do not inherit the lock. If the file system has no locks, a warning names the
    folder, and nothing is locked.

    Raises:
        RuntimeError: If another process holds the lock.
        OSError: If the file cannot be written; the message names the folder.
    """
    with _clear_error(path.parent, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open_locked(path)
    with lock as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def write_coco(
    path: Path,
    info: Any,
    categories: Sequence[Any],
    images: Iterable[str],
    annotations: Iterable[str],
    once: bool = False,
) -> None:
    """Write a COCO file from iterators, with one image or annotation per line.

    Args:
        path: The file, see :func:`whole_file`.
        info: Value of ``info``.
        categories: COCO categories.
        images: Images, each as JSON.
        annotations: Annotations, each as JSON; iterated over after all images are written.
        once: See :func:`whole_file`.
    """
    with whole_file(path, once) as file:
        file.write(f'{{"info": {json.dumps(info)},\n"categories": {json.dumps(categories)},\n')
        for key, items, end in (("images", images, "],"), ("annotations", annotations, "]}")):
            file.write(f'"{key}": [\n')
            separator = ""
            for item in items:
                file.write(separator + item)
                separator = ",\n"
            file.write(f"\n{end}\n")
