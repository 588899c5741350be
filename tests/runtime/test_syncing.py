# SPDX-License-Identifier: GPL-3.0-or-later
"""What is synced file by file, what by the file system, and that nothing is left out."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipper_runtime import syncing
from shipper_runtime.syncing import Syncer


class Calls:
    def __init__(self) -> None:
        self.files: list[int] = []
        self.systems: list[int] = []


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    made = Calls()
    monkeypatch.setattr(os, "fdatasync", made.files.append)
    monkeypatch.setattr(syncing, "_find_syncfs", lambda: made.systems.append)
    return made


@contextlib.contextmanager
def opened(folder: Path, count: int) -> Iterator[list[int]]:
    descriptors = [os.open(folder / ("f%d" % number), os.O_CREAT | os.O_RDWR) for number in range(count)]
    try:
        yield descriptors
    finally:
        for fd in descriptors:
            os.close(fd)


def test_few_files_are_synced_one_by_one(tmp_path: Path, calls: Calls) -> None:
    with opened(tmp_path, 3) as descriptors, contextlib.closing(Syncer(os.fsencode(tmp_path))) as syncer:
        syncer.sync(descriptors, [])
        assert (sorted(calls.files), calls.systems) == (sorted(descriptors), [])


def test_many_files_are_synced_with_their_file_system(tmp_path: Path, calls: Calls) -> None:
    with opened(tmp_path, 100) as descriptors, contextlib.closing(Syncer(os.fsencode(tmp_path))) as syncer:
        syncer.sync(descriptors, [os.fsencode(tmp_path)])
        assert (calls.files, len(calls.systems)) == ([], 1)


def test_files_of_another_file_system_are_synced_one_by_one_all_the_same(tmp_path: Path, calls: Calls) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        other = Path("/proc/self")
    with opened(tmp_path, 100) as descriptors, contextlib.closing(Syncer(os.fsencode(tmp_path))) as syncer:
        foreign = os.open(other, os.O_RDONLY)
        syncer.sync([*descriptors, foreign], [])
        os.close(foreign)
        assert (calls.files, len(calls.systems)) == ([foreign], 1)


def test_where_the_system_has_no_good_syncfs_all_are_synced_one_by_one(
    tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncing, "_find_syncfs", lambda: None)
    with opened(tmp_path, 100) as descriptors, contextlib.closing(Syncer(os.fsencode(tmp_path))) as syncer:
        syncer.sync(descriptors, [])
        assert sorted(calls.files) == sorted(descriptors)


def test_what_the_system_says_is_raised(tmp_path: Path) -> None:
    syncfs = syncing._find_syncfs()
    if syncfs is None:
        assert tuple(int(part) for part in os.uname().release.split(".")[:2]) < (5, 8)
        return
    with opened(tmp_path, 1) as descriptors:
        syncfs(descriptors[0])
    with pytest.raises(OSError) as raised:
        syncfs(-1)
    assert raised.value.errno == errno.EBADF


def test_a_folder_that_is_gone_needs_no_sync(tmp_path: Path) -> None:
    with contextlib.closing(Syncer(os.fsencode(tmp_path))) as syncer:
        syncer.sync([], [os.fsencode(tmp_path / "gone"), os.fsencode(tmp_path)])


def test_a_fifo_in_a_folders_place_is_not_waited_for(tmp_path: Path) -> None:
    with contextlib.closing(Syncer(os.fsencode(tmp_path))) as syncer:
        os.mkfifo(tmp_path / "fifo")
        # Who waits all the same is let go on, and raises nothing.
        writer = threading.Timer(5.0, os.open, [tmp_path / "fifo", os.O_WRONLY | os.O_NONBLOCK])
        writer.start()
        try:
            with pytest.raises(NotADirectoryError):
                syncer.sync([], {os.fsencode(tmp_path / "fifo")})
        finally:
            writer.cancel()
