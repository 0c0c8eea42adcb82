"""Locks that keep two processes from writing one folder, on file systems of any kind.

Not by filelock: it takes ``flock`` alone, which child processes inherit, and of the errors of file
systems without locks it knows only ENOSYS.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Callable
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
        _warn_if_no_locks(path.parent, error)
        return False
    return True


def _has_name(file: IO[Any], path: Path) -> bool:
    """Whether an open file has this name; the name is not opened, which would end our lock."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def wait_for_lock(file: IO[Any], folder: Path, when_held: Callable[[], object]) -> None:
    """Lock an open file; child processes that inherit it hold the lock too.

    Args:
        file: The file. The lock ends when the last process closes it.
        folder: Where it is. A warning names it if its file system has no locks; the file is not
            locked then.
        when_held: Called if another process holds the lock, before waiting for it.

    Raises:
        OSError: If the file cannot be locked.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        when_held()
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        _warn_if_no_locks(folder, error)


def _warn_if_no_locks(folder: Path, error: OSError) -> None:
    """Warn if an error in locking says that the file system has no locks; else raise it again."""
    if error.errno not in _NO_LOCKS:
        raise error
    print_log(
        f"{folder}: its file system has no locks ({error.strerror}). Two runs on it would not "
        "notice each other, and would spoil each other's files: start one at a time",
        "current",
        logging.WARNING,
    )
