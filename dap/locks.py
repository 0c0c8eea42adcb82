"""Locks that keep two processes from writing one folder, on file systems of any kind."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, TextIO

from mmengine.logging import print_log

# What file systems answer that have no locks, as some network and FUSE ones.
_NO_LOCKS = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_MOST_ATTEMPTS = 100


def open_locked(path: Path) -> TextIO:
    """Open and lock the file of this name, which its holder may remove before it closes it.

    A process that opened the file before it was removed, and locks it afterwards, holds a file
    without a name, which keeps nobody out: then the name is opened again. Where the file system
    has no locks, a warning names the folder, and the file is not locked.

    Returns:
        The file, for reading and for appending. Closing it ends the lock.

    Raises:
        RuntimeError: If another process holds it.
        OSError: If it cannot be opened or locked.
    """
    attempt = 0
    while True:
        attempt += 1
        with ExitStack() as stack:
            file = stack.enter_context(open(path, "a+", encoding="utf-8"))
            # Some file systems give a file another number each time, so that it never compares
            # as equal; the lock of the last attempt is kept then.
            if not _lock(file, path) or _has_name(file, path) or attempt == _MOST_ATTEMPTS:
                stack.pop_all()
                return file


def _lock(file: TextIO, path: Path) -> bool:
    """Lock an open file; warn and return False if its file system has no locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        raise RuntimeError(
            f"{path.parent} is being written by another process ({file.read().strip()}). Wait for "
            "its end, or give another folder"
        ) from error
    except OSError as error:
        if not has_no_locks(error):
            raise
        warn_of_no_lock(path.parent, error)
        return False
    return True


def _has_name(file: IO[Any], path: Path) -> bool:
    """Whether an open file has this name; the name is not opened, which would end our lock."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def has_no_locks(error: OSError) -> bool:
    """Whether an error in locking a file says that its file system has no locks."""
    return error.errno in _NO_LOCKS


def warn_of_no_lock(folder: Path, error: OSError) -> None:
    """Warn that nothing keeps two processes from writing a folder at the same time.

    Args:
        folder: The folder.
        error: The answer of its file system to a lock.
    """
    print_log(
        f"{folder}: its file system has no locks ({error.strerror}). Two runs on it would not "
        "notice each other, and would spoil each other's files: start one at a time",
        "current",
        logging.WARNING,
    )
