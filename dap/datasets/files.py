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
        folder: Where to look; symbolic links to folders are followed.
        suffixes: Ends of names in lower case, with the dot.

    Returns:
        Paths relative to ``folder``, with forward slashes, sorted.

    Raises:
        NotADirectoryError: If there is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; expected one that holds {suffixes[0]} …")
    found = []
    for place, _, names in os.walk(folder, followlinks=True):
        relative = Path(place).relative_to(folder)
        found += [
            (relative / name).as_posix()
            for name in names
            if os.path.splitext(name)[1].lower() in suffixes
        ]
    return sorted(found)


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """Read names, one a line; empty lines are left out.

    Raises:
        ValueError: If there is none, or one stands there twice.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    names = [line.strip() for line in lines if line.strip()]
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


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Open a text file that gets its name when all of it is written, its folder included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_items(file: TextIO, items: Iterable[Any]) -> None:
    """Write the items of a JSON list, one a line, without its brackets."""
    separator = ""
    for item in items:
        file.write(separator + json.dumps(item))
        separator = ",\n"
    file.write("\n")
