"""List the files below a folder, and report which files are left out and why."""

from __future__ import annotations

import logging
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from mmengine.logging import print_log

# Suffixes of images that are not supported; such files are counted and reported.
OTHER_IMAGE_SUFFIXES = frozenset((
    ".ai", ".apng", ".arw", ".avifs", ".cr2", ".cr3", ".cur", ".dds", ".dib", ".dng", ".eps",
    ".exr", ".hdr", ".heic", ".heics", ".heif", ".hif", ".icns", ".ico", ".j2c", ".j2k", ".jfi",
    ".jif", ".jng", ".jpc", ".jpf", ".jph", ".jpm", ".jpx", ".jxl", ".jxr", ".mng", ".nef", ".orf",
    ".pam", ".pbm", ".pcx", ".pfm", ".pic", ".pjp", ".pjpeg", ".pnm", ".psb", ".psd", ".raf",
    ".ras", ".raw", ".rw2", ".sgi", ".sr", ".sr2", ".srw", ".svg", ".svgz", ".tga", ".wdp", ".xbm",
    ".xcf", ".xpm",
))  # fmt: skip
# Files and folders that operating systems create, in lower case, except those starting with ".".
LEFTOVERS = frozenset((
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "#recycle", "@eadir",
    "lost+found", "system volume information",
))  # fmt: skip
MAX_INSPECTED = 4000  # files whose first bytes are read to see whether they are images
MAX_INSPECTED_PER_SUFFIX = 1000
MAX_KEYS = 100  # number of suffixes that a tally counts separately
_FTYPES = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*",
           b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")  # fmt: skip


class Tally:
    """Counts paths by a key, and keeps the first path in sorted order as an example."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.example = ""

    def add(self, key: str, path: str) -> None:
        """Count one path. Keys beyond ``MAX_KEYS`` are counted together."""
        known = key in self.counts or len(self.counts) < MAX_KEYS
        self.counts[key if known else "others"] += 1
        if not self.example or path < self.example:
            self.example = path

    @property
    def total(self) -> int:
        """Number of paths."""
        return self.counts.total()

    def __str__(self) -> str:
        """The largest counts and the example: ``(.heic 3, .svg 1), such as 'cat/a.heic'``."""
        shown = [f"{key} {count}" for key, count in self.counts.most_common(10)]
        more = ["…"] if len(self.counts) > len(shown) else []
        return f"({', '.join(shown + more)}), such as {self.example!r}"


class FileListing:
    """Lists files with certain suffixes below a folder, and counts the files that it leaves out.

    - Names that start with "." and those in ``LEFTOVERS`` are skipped at every depth.
    - A symbolic link to a folder is followed unless the folder contains the link, is listed below
      the root anyway, or was reached by another link.
    - Dangling links with one of the suffixes are listed, like files.

    Args:
        root: The folder.
        suffixes: Suffixes in lower case, with the dot.
        image_suffixes: Suffixes of images, in addition to ``OTHER_IMAGE_SUFFIXES``. Some thousand
            of the files with other suffixes are opened to see whether they are images. If empty,
            files that are not listed are not counted.

    Attributes:
        listed: Number of listed files.
        skipped: Tally of skipped names.
        not_taken: Tally of files that look like images but are not listed.
        other_files: Tally of other files that are not listed.
        dangling: Tally of dangling links, listed or not.
        not_followed: Tally of links to folders that were not followed.
    """

    def __init__(
        self, root: str, suffixes: Sequence[str], image_suffixes: Sequence[str] = ()
    ) -> None:
        self.root = root
        self.suffixes = tuple(suffixes)
        self.image_suffixes = OTHER_IMAGE_SUFFIXES.union(image_suffixes) if image_suffixes else ()
        self.listed = 0
        self.skipped, self.not_taken, self.other_files = Tally(), Tally(), Tally()
        self.dangling, self.not_followed = Tally(), Tally()
        self._inspected = 0
        self._inspected_by_suffix: Counter[str] = Counter()
        self._real_root = os.path.realpath(root)

    def top(self, kept: Collection[str] = ()) -> tuple[list[str], list[str]]:
        """List the root alone.

        Args:
            kept: Names of folders that are never skipped.

        Returns:
            Names of the folders and of the listed files in it, each sorted.
        """
        folders, links, files = self._scan("", kept)
        for link in links:
            if _holds(os.path.realpath(os.path.join(self.root, link)), self._real_root):
                self.not_followed.add("", link)
            else:
                folders.append(link)
        return sorted(folders), sorted(files)

    def files(self, folder: str = "") -> list[str]:
        """List all files below a folder, as paths relative to the root, sorted, with "/"."""
        return sorted(self.walk(folder))

    def walk(self, folder: str = "") -> Iterator[str]:
        """Like `files`, but unsorted, with the names of only one folder in memory at a time.

        Raises:
            OSError: If a folder cannot be listed; the message names the folder.
        """
        real = os.path.realpath(os.path.join(self.root, folder))
        seen = {real}
        # Relative path, real path, and real paths of the folders with the links followed so far.
        pending_folders: list[tuple[str, str, tuple[str, ...]]] = [(folder, real, ())]
        pending_links: list[tuple[str, tuple[str, ...]]] = []
        while pending_folders or pending_links:
            if not pending_folders:  # links last, so that files are listed by their real path
                pending_links.sort(reverse=True)
                link, holders = pending_links.pop()
                real = os.path.realpath(os.path.join(self.root, link))
                if real in seen or self._is_listed_directly(real) or _holds(real, *holders):
                    self.not_followed.add("", link)
                    continue
                seen.add(real)
                pending_folders.append((link, real, holders))
            path, real, holders = pending_folders.pop()
            folders, links, files = self._scan(path)
            self.listed += len(files)
            yield from files
            pending_links += [(link, (*holders, real)) for link in links]
            for inner in folders:
                inner_real = os.path.join(real, os.path.basename(inner))
                if inner_real not in seen:
                    seen.add(inner_real)
                    pending_folders.append((inner, inner_real, holders))

    def log(self) -> None:
        """Log which files were left out so far."""
        for level, text in self._messages():
            print_log(f"{self.root}: {text}", "current", level)

    def _messages(self) -> Iterator[tuple[int, str]]:
        if self.dangling.total:
            target = os.readlink(os.path.join(self.root, self.dangling.example))
            yield (
                logging.WARNING,
                f"dangling links: {self.dangling.total} {self.dangling} -> {target!r}. Mount or "
                "download their targets",
            )
        if self.not_followed.total:
            yield (
                logging.WARNING,
                f"links to folders that were not followed: {self.not_followed.total}, such as "
                f"{self.not_followed.example!r}: the folders contain the link, or are listed "
                "without it",
            )
        if self.not_taken.total:
            yield (
                logging.WARNING,
                f"files that look like images and are not taken: {self.not_taken.total} "
                f"{self.not_taken}. Supported are {', '.join(sorted(self.suffixes))}: convert the "
                "files, or rename them to the suffix of their format",
            )
        if self.skipped.total:
            yield (
                logging.INFO,
                f"skipped hidden names and leftovers of systems: {self.skipped.total} "
                f"{self.skipped}",
            )
        if self.other_files.total:
            yield (
                logging.INFO,
                f"other files, which are not taken: {self.other_files.total} {self.other_files}; "
                f"files that were opened: {self._inspected}",
            )

    def _scan(
        self, folder: str, kept: Collection[str] = ()
    ) -> tuple[list[str], list[str], list[str]]:
        """List folders, links to folders, and files of one folder; paths relative to the root."""
        folders: list[str] = []
        links: list[str] = []
        files: list[str] = []
        absolute = os.path.join(self.root, folder)
        prefix = f"{folder}/" if folder else ""
        try:
            with os.scandir(absolute) as entries:
                for entry in entries:
                    name = entry.name
                    path = prefix + name
                    if is_skipped(name) and name not in kept:
                        self.skipped.add("hidden" if name[0] == "." else name, path)
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    elif entry.is_symlink() and self._leads_to_folder(path):
                        links.append(path)
                    elif name.lower().endswith(self.suffixes):
                        files.append(path)
                    elif self.image_suffixes:
                        self._leave_out(path)
        except OSError as error:
            raise type(error)(
                f"{absolute}: the folder cannot be listed ({error.strerror}); check the path and "
                "its permissions"
            ) from error
        return folders, links, files

    def _leads_to_folder(self, link: str) -> bool:
        try:
            return stat.S_ISDIR(os.stat(os.path.join(self.root, link)).st_mode)
        except OSError:  # dangling, a cycle of links, or no permission
            self.dangling.add(_suffix(link), link)
            return False

    def _leave_out(self, path: str) -> None:
        """Count a file that is not listed."""
        suffix = _suffix(path)
        looks_like_image = suffix in self.image_suffixes
        if not looks_like_image and self._may_inspect(suffix):
            self._inspected += 1
            self._inspected_by_suffix[suffix] += 1
            looks_like_image = starts_like_image(os.path.join(self.root, path))
        (self.not_taken if looks_like_image else self.other_files).add(suffix, path)

    def _may_inspect(self, suffix: str) -> bool:
        return (
            self._inspected < MAX_INSPECTED
            and self._inspected_by_suffix[suffix] < MAX_INSPECTED_PER_SUFFIX
        )

    def _is_listed_directly(self, real: str) -> bool:
        """Whether a folder is listed below the root without following a link to it."""
        if not _holds(self._real_root, real):
            return False
        parts = os.path.relpath(real, self._real_root).split(os.sep)
        return parts == [os.curdir] or not any(map(is_skipped, parts))


def starts_like_image(path: str) -> bool:
    """Whether a file starts like an image of a known format; False if it cannot be read."""
    if not os.path.isfile(path):  # reading a pipe could block
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(32)
    except OSError:
        return False
    return (
        start.startswith(_STARTS)
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
        or (start[:2] == b"BM" and start[6:10] == b"\0\0\0\0")  # reserved bytes of a BMP file
        or (start[4:8] == b"ftyp" and start[8:12] in _FTYPES)
    )


def is_skipped(name: str) -> bool:
    """Whether a name is hidden or one of the ``LEFTOVERS``."""
    return name[0] == "." or name.lower() in LEFTOVERS


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower() or "without suffix"


def _holds(folder: str, *paths: str) -> bool:
    """Whether a folder is one of some real paths, or contains one of them."""
    start = folder.rstrip(os.sep) + os.sep
    return any(path == folder or path.startswith(start) for path in paths)
