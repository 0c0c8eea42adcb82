"""What the makers of COCO files share: files below a folder, lists of names, whole files."""

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

# Of images that OpenCV, mmcv's and mmdet's default decoder, reads. The one list of the project.
IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
PARTIAL = ".partial"  # ends the names of files that are being written

# What file systems answer that cannot flush, as some network and FUSE ones.
_NO_FSYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


def files_below(folder: Path, suffixes: Sequence[str]) -> list[str]:
    """Find files by the end of their names, in whatever case, in all folders below one.

    What is left out, such as hidden names and images of other kinds, is logged.

    Args:
        folder: Where to look; see :class:`dap.listing.FileListing` about links and hidden names.
        suffixes: Ends of names in lower case, with the dot.

    Returns:
        Paths relative to ``folder``, with forward slashes, sorted.

    Raises:
        NotADirectoryError: If there is no such folder.
        OSError: If a folder cannot be listed.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; expected one that holds {suffixes[0]} …")
    is_of_images = not set(suffixes).isdisjoint(IMAGE_SUFFIXES)
    listing = FileListing(str(folder), suffixes, IMAGE_SUFFIXES if is_of_images else ())
    names = listing.files()
    listing.log()
    return names


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file; an ``OSError`` names it first, as the other errors do."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise type(error)(f"{path}: cannot be read ({error.strerror}); check the path") from error


def text_lines(content: bytes, path: str | os.PathLike[str]) -> list[str]:
    """Split the content of a text file into all its lines, blanks around them and a BOM left out.

    Raises:
        ValueError: If it is no text in UTF-8; ``path`` is its name.
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
    """Like `text_lines`, empty lines left out."""
    return [line for line in text_lines(content, path) if line]


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Read the lines of a list, see `split_lines`."""
    return split_lines(read_bytes(path), path)


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """Read names, one per line; empty lines are left out.

    Raises:
        ValueError: If there is none, or one stands there twice.
    """
    names = read_lines(path)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        found = f"found {twice[0]!r} twice" if twice else "found none"
        raise ValueError(f"{path}: expected different names, one per line, {found}")
    return names


def left_out_line(
    left_out: Sequence[dict[str, str]], shown: int = 10, what: str = "files left out"
) -> str:
    """Sentence on how many files or other items were left out; it names the first."""
    named = "".join(f"\n  {item['file']}: {item['reason']}" for item in left_out[:shown])
    more = f"\n  and {len(left_out) - shown} more" if len(left_out) > shown else ""
    return f"{len(left_out)} {what}, all of them named in the file's info:{named}{more}"


def output_file(path: str | os.PathLike[str]) -> Path:
    """Check the path of an output file before the work; it must not be a folder."""
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; expected the name of a file to write")
    return Path(path)


@contextmanager
def whole_file(path: Path, once: bool = False) -> Iterator[TextIO]:
    """Open a text file that gets its name when all of it is written, its folder included.

    Args:
        path: The file.
        once: Whether a file that is there stays: one with the same content is kept as it is, one
            with other content is an error.

    Raises:
        FileExistsError: If ``once`` and the file is there with other content.
        OSError: If it cannot be written; it names the file.
    """
    with _partial_of(path) as partial:
        with open(partial, "w", encoding="utf-8") as file:
            yield file
            _sync(file)
        if not once or not path.exists():
            _rename(partial, path)
        elif partial.read_bytes() != path.read_bytes():
            raise FileExistsError(
                f"{path} is there with other content; predictions or a training may rely on it. "
                "Move it away, or give another name"
            )


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that gets its name when all of it is on the disk, its folder included.

    Raises:
        OSError: If it cannot be written; it names the file.
    """
    with _partial_of(path) as partial:
        with open(partial, "wb") as file:
            file.write(content)
            _sync(file)
        _rename(partial, path)


@contextmanager
def _partial_of(path: Path) -> Iterator[Path]:
    """Temporary name of a file while it is written; leftovers are removed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with _clear_error(path, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _clear_error(path, partial):
            yield partial
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _clear_error(path: Path, own: Path) -> Iterator[None]:
    """Name the file or folder in an error raised while writing ``own``."""
    try:
        yield
    except OSError as error:
        other = error.filename is not None and not own.is_relative_to(error.filename)
        if other or error.strerror is None:
            raise
        raise type(error)(
            f"{path} cannot be written ({error.strerror}). Nothing that was finished is lost: make "
            "room, or let the folder be written to, and run the same again"
        ) from error


def _sync(file: IO[Any]) -> None:
    file.flush()
    _fsync(file.fileno(), _NO_FSYNC)


def _rename(partial: Path, path: Path) -> None:
    """Give a file its name, and see to it that the folder knows after a power cut too.

    The latter as far as the file system can: the file is there, whether or not its folder may be
    opened and flushed.
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
    """Flush to the disk, unless the file system answers that it cannot flush."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in not_supported:
            raise


def remove_partial_files(folder: Path) -> None:
    """Remove partial files of killed processes."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which is removed at the end; the lock ends with the process, too.

    Processes that this one forks do not have the lock. Where the file system has no locks, a
    warning names the folder, and nothing is locked.

    Raises:
        RuntimeError: If another process holds it.
        OSError: If it cannot be written; it names the folder.
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
    """Write a COCO file, one image or annotation a line, images first; hold none of them.

    Args:
        path: The file, see :func:`whole_file`.
        info: What it says of itself.
        categories: COCO categories.
        images: Images, each as JSON.
        annotations: Annotations, each as JSON; asked for when the images are written.
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
