"""What the makers of COCO files share: files below a folder, lists of names, whole files."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def files_below(folder: Path, suffixes: Sequence[str]) -> list[str]:
    """Find files by the end of their names, in whatever case, in all folders below one.

    Args:
        folder: Where to look. Symbolic links to folders outside of it are followed, but no folder
            is looked at twice.
        suffixes: Ends of names in lower case, with the dot.

    Returns:
        Paths relative to ``folder``, with forward slashes, sorted.

    Raises:
        NotADirectoryError: If there is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; expected one that holds {suffixes[0]} …")
    root = folder.resolve()
    found: list[str] = []
    seen: set[Path] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        real = Path(place).resolve()
        inner_link = real != root and os.path.islink(place) and real.is_relative_to(root)
        if inner_link or real in seen:
            folders.clear()
            continue
        seen.add(real)
        relative = Path(place).relative_to(folder)
        found += [
            (relative / name).as_posix()
            for name in names
            if os.path.splitext(name)[1].lower() in suffixes
        ]
    return sorted(found)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file; an ``OSError`` names it first, as the other errors do."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise type(error)(f"{path}: cannot be read ({error.strerror}); check the path") from error


def split_lines(content: bytes, path: str | os.PathLike[str]) -> list[str]:
    """Split the content of a text file into lines, blanks, empty lines and a BOM left out.

    Raises:
        ValueError: If it is no text in UTF-8; ``path`` is its name.
    """
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}. Expected one name a line") from error
    return [line.strip() for line in lines if line.strip()]


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Read the lines of a list, see `split_lines`."""
    return split_lines(read_bytes(path), path)


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """Read names, one a line; empty lines are left out.

    Raises:
        ValueError: If there is none, or one stands there twice.
    """
    names = read_lines(path)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        found = f"found {twice[0]!r} twice" if twice else "found none"
        raise ValueError(f"{path}: expected different names, one a line, {found}")
    return names


def left_out_line(left_out: Sequence[dict[str, str]], shown: int = 10) -> str:
    """Say how many files were left out; name the first of them."""
    named = "".join(f"\n  {item['file']}: {item['reason']}" for item in left_out[:shown])
    more = f"\n  and {len(left_out) - shown} more" if len(left_out) > shown else ""
    return f"{len(left_out)} files left out, all of them named in the file's info:{named}{more}"


def output_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file to write, before the work; no folder may be there."""
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
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not once or not path.exists():
            partial.replace(path)
        elif partial.read_bytes() != path.read_bytes():
            raise FileExistsError(
                f"{path} is there with other content; predictions or a training may rely on it. "
                "Move it away, or give another name"
            )
    finally:
        partial.unlink(missing_ok=True)


def write_items(file: TextIO, items: Iterable[Any]) -> None:
    """Write the items of a JSON list, one a line, without its brackets."""
    separator = ""
    for item in items:
        file.write(separator + json.dumps(item))
        separator = ",\n"
    file.write("\n")
