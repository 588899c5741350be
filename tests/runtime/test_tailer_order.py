# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of two rotated files is the older one, where names alone do not tell."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from .tailing import Drive, append, compress, copytruncate, rename
from .test_tailer import lines


def age(path: Path, hours: int) -> Path:
    """As if it had not been written to for so long."""
    then = path.stat().st_mtime_ns - hours * 3600 * 1_000_000_000
    os.utime(path, ns=(then, then))
    return path


def rise(path: Path, zipped: bool = False, delayed: bool = False) -> None:
    """log4j2's way: the first rotated file is app.log.1, the next one app.log.2."""
    names = (path.with_name("%s.%d" % (path.name, number)) for number in count(1))
    free = next(name for name in names if not name.exists() and not name.with_name(name.name + ".gz").exists())
    path.rename(free)
    before = free.with_suffix(".%d" % (int(free.suffix[1:]) - 1))
    for file in [free] * zipped + [before] * (delayed and before.exists()):
        then = file.stat().st_mtime_ns
        os.utime(compress(file), ns=(then, then))


class Written:
    """Writes to a log as if that was so many hours ago; all says what the file's archive must hold."""

    def __init__(self, log: Path) -> None:
        self.all = b""
        self._log = log

    def write(self, name: str, hours: int) -> None:
        append(self._log, lines(name, 3))
        age(self._log, hours)
        self.all += lines(name, 3)


def renumber(path: Path) -> None:
    """log4j2's way when there are too many: the oldest is deleted, and all others have one less."""
    path.with_name(path.name + ".1").unlink()
    for number in count(2):
        old = path.with_name("%s.%d" % (path.name, number))
        if not old.exists():
            return
        old.rename(path.with_name("%s.%d" % (path.name, number - 1)))


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("how", ["plain", "zipped", "delayed", "renumbered"])
def test_rotated_files_whose_numbers_rise_are_read_oldest_first(tmp_path: Path, before: int, how: str) -> None:
    log = tmp_path / "app.log"
    drive = Drive(tmp_path, log)
    written = Written(log)
    for number in range(before):
        written.write("before %d" % number, 90 - number)
        drive.run()
        rise(log, how == "zipped", how == "delayed")
        append(log, b"")
        age(log, 90 - number)
        drive.run(10)
    written.write("read", 80)
    drive.run(10)
    drive.stop()
    for number in range(4):
        written.write("down %d" % number, 70 - number)
        rise(log, how == "zipped", how == "delayed")
        if how == "renumbered" and number < before:
            renumber(log)
    written.write("now", 1)
    drive.begin()
    assert drive.run(10).of(log) == written.all


def test_a_glob_begins_with_the_oldest_of_files_whose_numbers_rise(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    for number in range(3):
        append(log, lines("rotated %d" % number, 3))
        rise(age(log, 10 - number))
    append(log, lines("now", 3))
    archive = Drive(tmp_path, tmp_path / "app.log*").run()
    assert archive.of(log) == b"".join(lines("rotated %d" % number, 3) for number in range(3)) + lines("now", 3)


@pytest.mark.parametrize("kept", [1, 2])
def test_a_late_writer_does_not_make_numbers_rise(tmp_path: Path, kept: int) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 3))
    drive = Drive(tmp_path, age(log, 5))
    drive.run()
    drive.stop()
    append(log, lines("b", 3))
    age(log, 4)
    rename(log)
    append(log, lines("c", 3))
    age(log, 3)
    rename(log)
    written = lines("a", 3) + lines("b", 3) + b"late\n" + lines("c", 3)
    if kept == 2:
        append(log, lines("d", 3))
        age(log, 2)
        rename(log)
        written += lines("d", 3)
    append(tmp_path / ("app.log.%d" % (kept + 1)), b"late\n")
    append(log, lines("now", 3))
    drive.begin()
    assert drive.run(10).of(log) == written + lines("now", 3)


@pytest.mark.parametrize("how", [rename, copytruncate])
@pytest.mark.parametrize("outages", [1, 2])
@pytest.mark.parametrize("rotations", [3, 8])
def test_files_that_were_shipped_long_ago_and_compressed_late_are_not_read_again(
    tmp_path: Path, how: Callable[[Path], None], outages: int, rotations: int
) -> None:
    log = tmp_path / "app.log"
    drive = Drive(tmp_path, log)
    written = Written(log)
    for number in range(rotations):
        written.write("rotated %d" % number, 90 - number)
        drive.run()
        how(log)
    written.write("read", 80)
    drive.run(10)
    drive.stop()
    for number in range(1, rotations + 1):
        age(compress(log.with_name("app.log.%d" % number)), 10)
    for _turn in range(3):
        drive.begin()
        drive.run(10)
        drive.stop()
    for number in range(outages):
        written.write("not read %d" % number, 9)
        how(log)
    written.write("now", 1)
    for _turn in range(10):
        drive.begin()
        assert drive.run(10).of(log) == written.all
        drive.stop()


@pytest.mark.parametrize("down", [False, True])
def test_files_that_came_and_were_rotated_between_two_looks_are_read_though_none_follows(
    tmp_path: Path, down: bool
) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 3))
    drive = Drive(tmp_path, age(log, 5))
    drive.run()
    if down:
        drive.stop()
    append(log, lines("b", 3))
    rename(log)
    append(log, lines("c", 3))
    rename(log)
    if down:
        drive.begin()
    assert drive.run(5).of(log) == lines("a", 3) + lines("b", 3) + lines("c", 3)
    append(log, lines("d", 3))
    rename(log)
    compress(tmp_path / "app.log.2")
    assert drive.run(5).of(log) == lines("a", 3) + lines("b", 3) + lines("c", 3) + lines("d", 3)
    append(log, lines("e", 3))
    assert drive.run(5).of(log) == b"".join(lines(name, 3) for name in "abcde")
