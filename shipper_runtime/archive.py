# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive's files: ``<directory>/<host>/<name>``, appended to and never anything else.

Nothing below the directory is reached through a symbolic link, whatever is put there. Folders are 0750 and files 0640
whatever the umask; a folder's group is inherited where its setgid bit says so.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import stat
from collections import OrderedDict
from collections.abc import Iterator
from typing import Callable

from .errors import SettingError, printable
from .partition import is_host

logger = logging.getLogger(__name__)

VARIABLE = "SHIPPER_DIRECTORY"
IDLE_CLOSED_AFTER = 60.0
CHECK_INTERVAL = 1.0
_DESCRIPTORS_RESERVED = 64
_DESCRIPTORS_LEAST = 16
_DESCRIPTORS_MOST = 4096

_FOLDER_MODE, _FILE_MODE = 0o750, 0o640
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK so that a FIFO in a file's place is an error and not a wait.
_FILE_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# These concern the whole archive and pass: wait. Others concern one file: it must not stop the rest.
_WAIT_FOR = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
# What a chunk costs in memory besides its bytes.
_CHUNK_OVERHEAD = 64

Unwritten = Callable[[str, str, int, OSError], None]


def check_directory(directory: str) -> None:
    """Whether the archive's root is there, or can be made, and can be written; changes nothing. Raises SettingError."""
    if "\0" in directory:
        raise SettingError(VARIABLE, directory, "a path cannot hold a NUL")
    path = os.path.abspath(directory)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise SettingError(VARIABLE, directory, "it is not a folder; name another, or move that away")
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise SettingError(VARIABLE, directory, "it cannot be made, because %s is not a folder" % printable(there))
    if not os.access(there, os.W_OK | os.X_OK):
        what = "it is not writable" if there == path else "it cannot be made, because %s is not writable" % there
        raise SettingError(VARIABLE, directory, "%s for this user; change its owner or mode" % what)


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
        self.chunks: list[bytes] = []
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
        self._directory = os.fsencode(os.path.abspath(directory))
        self._unwritten = unwritten
        self._descriptors = descriptors or descriptor_budget()
        self._files: dict[tuple[str, bytes], _File] = {}
        self._open_files: OrderedDict[_File, None] = OrderedDict()
        self._dirty: list[_File] = []
        try:
            self._root = self._open_root()
        except OSError as error:
            raise SettingError(VARIABLE, directory, "it cannot be made or opened: %s" % error.strerror) from None

    def append(self, host: str, name: bytes, data: bytes) -> None:
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
                self._unwritten(file.host, self._path(file), file.size, error)
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
        os.close(self._root)

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
        *folders, leaf = file.name.split(b"/")
        for attempt in (1, 2, 3):
            try:
                with self._folder([file.host.encode("ascii"), *folders]) as folder:
                    file.fd = self._open_leaf(file, leaf, folder)
                break
            except FileNotFoundError:
                # Somebody removed the folder, as the sweep does with an empty one, or the root.
                if attempt == 3:
                    raise
                self._renew_root()
        status = os.fstat(file.fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(file.fd)
            file.fd = -1
            raise OSError(errno.EINVAL, "it is not a regular file")
        file.identity = (status.st_dev, status.st_ino)
        self._open_files[file] = None

    def _open_leaf(self, file: _File, leaf: bytes, folder: int) -> int:
        with contextlib.suppress(FileNotFoundError):
            return os.open(leaf, _FILE_FLAGS, dir_fd=folder)
        try:
            fd = os.open(leaf, _FILE_FLAGS | os.O_CREAT | os.O_EXCL, _FILE_MODE, dir_fd=folder)
        except FileExistsError:
            return os.open(leaf, _FILE_FLAGS, dir_fd=folder)
        _set_mode(fd, _FILE_MODE)
        logger.info('Creating new log "%s"', printable(self._path(file)))
        return fd

    @contextlib.contextmanager
    def _folder(self, names: list[bytes]) -> Iterator[int]:
        """A descriptor of the folder of these names below the root; those that are missing are made."""
        folder = self._root
        try:
            for name in names:
                inner = _enter(name, folder)
                if folder != self._root:
                    os.close(folder)
                folder = inner
            yield folder
        finally:
            if folder != self._root:
                os.close(folder)

    def _open_root(self) -> int:
        _make_folders(self._directory)
        # Here a symbolic link is the operator's choice.
        return os.open(self._directory, _FOLDER_FLAGS & ~os.O_NOFOLLOW)

    def _renew_root(self) -> None:
        if os.fstat(self._root).st_nlink > 0:
            return
        try:
            root = self._open_root()
        except OSError as error:
            raise OSError(
                errno.ESTALE, "the folder was removed and cannot be made again: %s" % error.strerror
            ) from None
        os.close(self._root)
        self._root = root

    def _is_in_place(self, file: _File) -> bool:
        """Whether the open file is still the one of its name: it may have been removed or moved away."""
        try:
            status = os.stat(self._path_bytes(file), follow_symlinks=False)
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

    def _path_bytes(self, file: _File) -> bytes:
        return b"%s/%s/%s" % (self._directory, file.host.encode("ascii"), file.name)

    def _path(self, file: _File) -> str:
        return os.fsdecode(self._path_bytes(file))


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


def _enter(name: bytes, parent: int) -> int:
    """A descriptor of the folder, which is made if it is missing. Raises OSError where it is a symbolic link."""
    with contextlib.suppress(FileNotFoundError):
        return os.open(name, _FOLDER_FLAGS, dir_fd=parent)
    try:
        os.mkdir(name, _FOLDER_MODE, dir_fd=parent)
    except FileExistsError:
        return os.open(name, _FOLDER_FLAGS, dir_fd=parent)
    folder = os.open(name, _FOLDER_FLAGS, dir_fd=parent)
    _set_mode(folder, _FOLDER_MODE)
    return folder


def _make_folders(path: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        os.mkdir(path, _FOLDER_MODE)
    except FileExistsError:
        return
    os.chmod(path, _FOLDER_MODE | (os.stat(path).st_mode & stat.S_ISGID))


def _set_mode(fd: int, mode: int) -> None:
    """Undo the umask; what is right already is left alone, for chmod may clear the setgid bit."""
    now = os.fstat(fd).st_mode
    if now & 0o777 != mode:
        os.fchmod(fd, mode | (now & stat.S_ISGID))


def _cut_back(fd: int, written: int) -> bool:
    """Take the bytes just written away again, so that no line is left torn; whether that worked."""
    try:
        # Appending leaves the position behind what it wrote, wherever that was.
        os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR) - written)
    except OSError:
        return False
    return True
