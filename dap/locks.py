"""Locks that prevent two processes from writing to the same folder, on any file system.

The package filelock is not sufficient: it uses only ``flock``, which child processes inherit, and
of the errors of file systems without locks it handles only ENOSYS.
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

# Errors of file systems without locks, such as some network and FUSE file systems.
_NO_LOCKS = frozenset({errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_MAX_ATTEMPTS = 100


def open_locked(path: Path) -> TextIO:
    """Open and lock a file that its previous owner may remove before closing it.

    A process that opens the file before it is removed, and locks it afterwards, has locked a file
    that no other process can open. In this case the path is opened again. If the file system has
    no locks, a warning names the folder, and the file is not locked.

    Returns:
        The file, for reading and for appending. Closing it releases the lock.

    Raises:
        RuntimeError: If another process holds the lock.
        OSError: If it cannot be opened or locked.
    """
    attempt = 0
    while True:
        attempt += 1
        with ExitStack() as stack:
            file = stack.enter_context(open(path, "a+", encoding="utf-8"))
            # On some file systems the inode number changes with each call, so that the comparison
            # always fails; the lock of the last attempt is kept then.
            if not _lock(file, path) or _has_name(file, path) or attempt == _MAX_ATTEMPTS:
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
            "its end, or use another folder"
        ) from error
    except OSError as error:
        _warn_if_no_locks(path.parent, error)
        return False
    return True


def _has_name(file: IO[Any], path: Path) -> bool:
    """Whether a path refers to an open file; opening the path again would release the lock."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def wait_for_lock(file: IO[Any], folder: Path, when_held: Callable[[], object]) -> None:
    """Lock an open file, waiting for other processes. Child processes inherit the lock.

    Args:
        file: The file. The lock is released when the last process closes it.
        folder: Folder of the file. If its file system has no locks, a warning names the folder,
            and the file is not locked.
        when_held: Called before waiting, if another process holds the lock.

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
    """Warn if an error means that the file system has no locks; otherwise raise it again."""
    if error.errno not in _NO_LOCKS:
        raise error
    print_log(
        f"{folder}: its file system has no locks ({error.strerror}). Two runs that write to this "
        "folder at the same time would damage each other's files: start only one at a time",
        "current",
        logging.WARNING,
    )
