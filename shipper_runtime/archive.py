# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive's files: ``<directory>/<host>/<name>``, appended to and never anything else."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
from collections import OrderedDict
from typing import Callable

from .confined import Root
from .partition import is_host
from .wire import Payload

logger = logging.getLogger(__name__)

IDLE_CLOSED_AFTER = 60.0
CHECK_INTERVAL = 1.0
_DESCRIPTORS_RESERVED = 64
_DESCRIPTORS_LEAST = 16
_DESCRIPTORS_MOST = 16384

# These concern the whole archive and pass: wait. Others concern one file: it must not stop the rest.
_WAIT_FOR = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
# What a chunk costs in memory besides its bytes.
_CHUNK_OVERHEAD = 64

Unwritten = Callable[[str, str, int, OSError], None]


def descriptor_budget() -> int:
    """How many files may be open at a time, from what this process may have."""
    soft, _nothing = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _DESCRIPTORS_MOST
    return max(_DESCRIPTORS_LEAST, min(_DESCRIPTORS_MOST, soft - _DESCRIPTORS_RESERVED))


class _File:
    __slots__ = ("checked", "chunks", "cost", "fd", "host", "identity", "name", "size", "used")

    def __init__(self, host: str, name: bytes) -> None:
        self.host = host
        self.name = name
        self.chunks: list[Payload] = []
        self.size = 0
        self.cost = 0
        self.fd = -1
        self.identity = (0, 0)
        self.checked = 0.0
        self.used = 0.0


class Archive:
    """Gathers what is to be appended, and writes it with few calls; holds a bounded number of files open.

    unwritten(host, path, bytes, error) is told of what had to be given up because its file cannot be written. What
    waits for room is not given up; in_hand says how much memory it takes.
    """

    def __init__(self, directory: str, unwritten: Unwritten, descriptors: int | None = None) -> None:
        """Makes the directory. Raises SettingError where it cannot be used."""
        self.in_hand = 0
        self.written = 0
        self._root = Root(directory)
        self._unwritten = unwritten
        self._descriptors = descriptors or descriptor_budget()
        self._files: dict[tuple[str, bytes], _File] = {}
        self._open_files: OrderedDict[_File, None] = OrderedDict()
        self._dirty: list[_File] = []

    def append(self, host: str, name: bytes, data: Payload) -> None:
        """Have data appended to a host's file at the next flush. name is relative and confined: see output.py."""
        file = self._files.get((host, name))
        if file is None:
            file = self._files[(host, name)] = _File(host, name)
        if not file.chunks:
            self._dirty.append(file)
        file.chunks.append(data)
        file.size += len(data)
        file.cost += len(data) + _CHUNK_OVERHEAD
        self.in_hand += len(data) + _CHUNK_OVERHEAD

    def flush(self, now: float) -> OSError | None:
        """Write what is in hand; now is a monotonic time. The error that keeps all from being written for a while, or
        None: then nothing is in hand any more."""
        while self._dirty:
            file = self._dirty[-1]
            try:
                self._write(file, now)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._open_files:
                    self._close(next(iter(self._open_files)))
                    continue
                if error.errno in _WAIT_FOR:
                    return error
                self._unwritten(file.host, self._root.shown(file.host, file.name), file.size, error)
                self._settle(file)
                self._close(file)
            else:
                self._settle(file)
            self._dirty.pop()
        return None

    def close_idle(self, now: float) -> None:
        """Close what was not written for a minute: an expired file frees its room only when nobody has it open."""
        while self._open_files:
            oldest = next(iter(self._open_files))
            if now - oldest.used < IDLE_CLOSED_AFTER:
                break
            self._close(oldest)

    def close(self) -> None:
        """Close all files; what is in hand is lost."""
        for file in list(self._open_files):
            self._close(file)
        self._root.close()

    def _write(self, file: _File, now: float) -> None:
        if file.fd >= 0 and now - file.checked >= CHECK_INTERVAL:
            file.checked = now
            if not self._is_in_place(file):
                self._close(file)
        if file.fd < 0:
            self._open(file)
            file.checked = now
        self._open_files.move_to_end(file)
        file.used = now
        data = b"".join(file.chunks)
        file.chunks[:] = [data]
        written = 0
        try:
            while written < len(data):
                written += os.write(file.fd, memoryview(data)[written:] if written else data)
        except OSError:
            if written and not _cut_back(file.fd, written):
                file.chunks[:] = [data[written:]]
            raise
        self.written += len(data)

    def _settle(self, file: _File) -> None:
        """Nothing of this file is in hand any more."""
        self.in_hand -= file.cost
        file.chunks.clear()
        file.size = file.cost = 0

    def _open(self, file: _File) -> None:
        while len(self._open_files) >= self._descriptors:
            self._close(next(iter(self._open_files)))
        opened = self._root.open_file(file.host, file.name, os.O_WRONLY | os.O_APPEND)
        file.fd = opened.fd
        file.identity = (opened.status.st_dev, opened.status.st_ino)
        self._open_files[file] = None

    def _is_in_place(self, file: _File) -> bool:
        """Whether the open file is still the one of its name: it may have been removed or moved away."""
        try:
            status = self._root.status(file.host, file.name)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == file.identity

    def _close(self, file: _File) -> None:
        if file.fd >= 0:
            os.close(file.fd)
            file.fd = -1
            del self._open_files[file]
        if not file.chunks:
            self._files.pop((file.host, file.name), None)


class Swept:
    """What a sweep did: removed files and their bytes, and the errors it met."""

    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0
        self.errors: list[OSError] = []


def sweep(directory: str, is_old: Callable[[bytes], bool], stopping: Callable[[], bool]) -> Swept:
    """Remove the files below the hosts' folders whose relative names are old, and the folders which that empties.

    Symbolic links are neither followed nor removed, and a host's own folder stays. Runs in a thread beside an
    Archive; ends early when stopping says so.
    """
    swept = Swept()
    root = os.fsencode(os.path.abspath(directory))
    for entry in _entries(root, swept):
        if is_host(os.fsdecode(entry.name)) and entry.is_dir(follow_symlinks=False):
            _sweep_folder(entry.path, b"", is_old, stopping, swept)
    return swept


def _sweep_folder(
    path: bytes, prefix: bytes, is_old: Callable[[bytes], bool], stopping: Callable[[], bool], swept: Swept
) -> bool:
    """Whether something was removed from the folder."""
    removed = False
    for entry in _entries(path, swept):
        if stopping():
            break
        try:
            if entry.is_dir(follow_symlinks=False):
                if _sweep_folder(entry.path, prefix + entry.name + b"/", is_old, stopping, swept):
                    with contextlib.suppress(OSError):
                        os.rmdir(entry.path)
                        removed = True
            elif is_old(prefix + entry.name) and entry.is_file(follow_symlinks=False):
                size = entry.stat(follow_symlinks=False).st_size
                os.unlink(entry.path)
                removed = True
                swept.files += 1
                swept.bytes += size
        except FileNotFoundError:
            pass  # another worker on the same archive was faster
        except OSError as error:
            swept.errors.append(error)
    return removed


def _entries(path: bytes, swept: Swept) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError as error:
        if error.errno != errno.ENOENT:
            swept.errors.append(error)
        return []


def _cut_back(fd: int, written: int) -> bool:
    """Take the bytes just written away again, so that no line is left torn; whether that worked."""
    try:
        # Appending leaves the position behind what it wrote, wherever that was.
        os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR) - written)
    except OSError:
        return False
    return True
