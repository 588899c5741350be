# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes what was written last: file by file, or a whole file system at once where that is cheaper."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

logger = logging.getLogger(__name__)

# From so many on, one syncfs costs less than a sync of each, even if others write to the file system too.
_MANY = 64
_AT_ONCE = 8
# Before, syncfs(2) did not tell of what could not be written.
_KERNEL_LEAST = (5, 8)

_pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sync")


class Syncer:
    """Syncs files and folders below one root, whose file system most of them are on.

    It holds a descriptor from before anything is written, for an error is told only to who had one then. Raises OSError
    where the root cannot be opened.
    """

    def __init__(self, root: bytes) -> None:
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._device = os.fstat(self._fd).st_dev
        self._syncfs = _find_syncfs()

    def sync(self, files: Collection[int], folders: Collection[bytes]) -> None:
        """On return the files' data (descriptors), and what is in the folders (paths), are on disk. Raises OSError."""
        if self._syncfs is not None and len(files) + len(folders) >= _MANY:
            self._syncfs(self._fd)
            files = [fd for fd in files if os.fstat(fd).st_dev != self._device]
            folders = [path for path in folders if not self._is_here(path)]
        if len(files) > 1:
            list(_pool.map(os.fdatasync, files))
        else:
            for fd in files:
                os.fdatasync(fd)
        if folders:
            list(_pool.map(sync_folder, sorted(folders)))

    def close(self) -> None:
        os.close(self._fd)

    def _is_here(self, path: bytes) -> bool:
        with contextlib.suppress(OSError):
            return os.stat(path).st_dev == self._device
        return False


def sync_folder(path: bytes) -> None:
    """Sync a folder, if it is still there: a sweep may have removed an empty one. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        # Names were looked up without following links; the root may be one, by the operator's choice.
        # A FIFO in its place would be waited for.
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _find_syncfs() -> Callable[[int], None] | None:
    """syncfs(2), which Python does not have, or None where it cannot be had or is no good."""
    release = os.uname().release.split(".")
    if not all(part.isdigit() for part in release[:2]) or tuple(map(int, release[:2])) < _KERNEL_LEAST:
        return None
    try:
        import ctypes

        function: Any = ctypes.CDLL(None, use_errno=True).syncfs
    except (ImportError, AttributeError, MemoryError, OSError):
        # An old ctypes needs memory that is writable and executable, which the unit forbids.
        return None

    def syncfs(fd: int) -> None:
        if function(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return syncfs
