# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens files below the archive's root, and nothing else: ``<directory>/<host>/<name>``.

Nothing is reached through a symbolic link, whatever is put there. Folders are 0750 and files 0640 whatever the umask; a
folder's group is inherited where its setgid bit says so.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import SettingError, printable

logger = logging.getLogger(__name__)

VARIABLE = "SHIPPER_DIRECTORY"

_FOLDER_MODE, _FILE_MODE = 0o750, 0o640
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK so that a FIFO in a file's place is an error and not a wait.
_FILE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True)
class Opened:
    """An open file; created tells that it was not there before."""

    fd: int
    status: os.stat_result
    created: bool


class Root:
    """The archive's root, held open. Makes the directory. Raises SettingError where it cannot be used."""

    def __init__(self, directory: str) -> None:
        self.directory = os.fsencode(os.path.abspath(directory))
        try:
            self._fd = self._open()
        except OSError as error:
            raise SettingError(VARIABLE, directory, "it cannot be made or opened: %s" % error.strerror) from None

    def open_file(self, host: str, name: bytes, flags: int) -> Opened:
        """Open a host's file, made with its folders if it is missing. Raises OSError, also for what is no file."""
        *folders, leaf = name.split(b"/")
        for attempt in (1, 2, 3):
            try:
                with self._folder([host.encode("ascii"), *folders]) as folder:
                    fd, created = _open_leaf(leaf, folder, flags)
                break
            except FileNotFoundError:
                # Somebody removed the folder, as the sweep does with an empty one, or the root.
                if attempt == 3:
                    raise
                self._renew()
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is not a regular file")
        if created:
            logger.info('Creating new log "%s"', self.shown(host, name))
        return Opened(fd, status, created)

    def status(self, host: str, name: bytes) -> os.stat_result:
        """What is at the name now. Raises OSError."""
        return os.stat(self.path(host, name), follow_symlinks=False)

    def path(self, host: str, name: bytes) -> bytes:
        return b"%s/%s/%s" % (self.directory, host.encode("ascii"), name)

    def shown(self, host: str, name: bytes) -> str:
        """The path on one line of a log."""
        return printable(os.fsdecode(self.path(host, name)))

    def close(self) -> None:
        os.close(self._fd)

    @contextlib.contextmanager
    def _folder(self, names: list[bytes]) -> Iterator[int]:
        """A descriptor of the folder of these names below the root; those that are missing are made."""
        folder = self._fd
        try:
            for name in names:
                inner = _enter(name, folder)
                if folder != self._fd:
                    os.close(folder)
                folder = inner
            yield folder
        finally:
            if folder != self._fd:
                os.close(folder)

    def _open(self) -> int:
        _make_folders(self.directory)
        # Here a symbolic link is the operator's choice.
        return os.open(self.directory, _FOLDER_FLAGS & ~os.O_NOFOLLOW)

    def _renew(self) -> None:
        if os.fstat(self._fd).st_nlink > 0:
            return
        try:
            root = self._open()
        except OSError as error:
            raise OSError(
                errno.ESTALE, "the folder was removed and cannot be made again: %s" % error.strerror
            ) from None
        # In one step and under the same number: another thread may be using it.
        try:
            os.dup2(root, self._fd, inheritable=False)
        finally:
            os.close(root)


def absolute(path: str, variable: str = VARIABLE) -> str:
    """The whole path. Raises SettingError where there is no telling, for the folder that it begins in is gone."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise SettingError(variable, path, "the folder that this is run in is gone; write the whole path") from None


def check_directory(directory: str, variable: str = VARIABLE) -> None:
    """Whether a folder, the archive's root without more, is there or can be made, and can be written; changes nothing.
    Raises SettingError."""
    if "\0" in directory:
        raise SettingError(variable, directory, "a path cannot hold a NUL")
    path = absolute(directory, variable)
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise SettingError(variable, directory, "it is too long for a path, or a name in it for a name") from None
    if os.path.lexists(path) and not os.path.isdir(path):
        raise SettingError(variable, directory, "it is not a folder; name another, or move that away")
    there = path
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise SettingError(variable, directory, "it cannot be made, because %s is not a folder" % printable(there))
    if not os.access(there, os.W_OK | os.X_OK):
        what = "it is not writable" if there == path else "it cannot be made, because %s is not writable" % there
        raise SettingError(variable, directory, "%s for this user; change its owner or mode" % what)


def _open_leaf(leaf: bytes, folder: int, flags: int) -> tuple[int, bool]:
    with contextlib.suppress(FileNotFoundError):
        return os.open(leaf, flags | _FILE_FLAGS, dir_fd=folder), False
    try:
        fd = os.open(leaf, flags | _FILE_FLAGS | os.O_CREAT | os.O_EXCL, _FILE_MODE, dir_fd=folder)
    except FileExistsError:
        return os.open(leaf, flags | _FILE_FLAGS, dir_fd=folder), False
    _set_mode(fd, _FILE_MODE)
    return fd, True


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
