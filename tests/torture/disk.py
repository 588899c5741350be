# SPDX-License-Identifier: GPL-3.0-or-later
"""Small disks that can be filled: file systems in memory, in a mount namespace of this process and its children.

Nobody else sees these mounts, and the kernel undoes them when the last of the processes has ended, whatever ended it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_MIB = 1024 * 1024


def own_mounts() -> str:
    """Let this process, and what it starts from now on, have mounts of its own; why not, where that cannot be.

    Only the calling thread's and its later children's: call it before there are threads.
    """
    if os.geteuid() != 0:
        return "only root may mount file systems"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return "no mount namespace: %s" % os.strerror(ctypes.get_errno())
    return _run("mount", "--make-rprivate", "/")


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        return "%s: %s" % (command[0], error.strerror)
    return done.stderr.strip().replace("\n", ", ") or "%s failed" % command[0] if done.returncode else ""


class Disk:
    """A file system with so much room beyond what is used; folder is where it is mounted."""

    def __init__(self, folder: Path, room: int) -> None:
        self.folder = folder
        self.mounted = False
        self._room = room
        self._filler = folder / ".filler"
        folder.mkdir(parents=True)

    def mount(self) -> str:
        """Why it cannot be mounted, or nothing."""
        problem = _run("mount", "-t", "tmpfs", "-o", "size=%d,mode=0755" % self._room, "torture", str(self.folder))
        self.mounted = not problem
        return problem

    def make_room(self) -> None:
        """As much room as in the beginning: what is archived stays."""
        found = os.statvfs(self.folder)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        problem = _run("mount", "-o", "remount,size=%d" % (used + self._room), str(self.folder))
        if problem:
            raise OSError(problem)

    def fill(self, left: int) -> None:
        """Leave no room but for so many bytes."""
        with open(self._filler, "wb", buffering=0) as filler:
            size = 0
            for step in (4 * _MIB, 64 * 1024, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(filler.fileno(), size, step)
                        size += step
            # What a step that failed has taken.
            filler.truncate(max(0, size - left))

    def empty(self) -> None:
        """Take the filler away."""
        self._filler.unlink(missing_ok=True)

    def unmount(self, keep: bool) -> None:
        """Undo the mount; what was on it stays in the folder where it is to be kept."""
        if not self.mounted:
            return
        self.empty()
        copy = self.folder.with_name(self.folder.name + ".kept")
        if keep:
            shutil.copytree(self.folder, copy, symlinks=True)
        problem = _run("umount", str(self.folder))
        if problem:
            # Something still has a file open there; it goes when that ends.
            _run("umount", "--lazy", str(self.folder))
        self.mounted = False
        if keep:
            self.folder.rmdir()
            copy.rename(self.folder)
