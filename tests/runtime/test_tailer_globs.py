# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that a glob comes to match while the producer runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .tailing import Drive, append
from .test_tailer import lines

PATTERNS = ["*/app.log", "**/app.log", "*/logs/app.log", "**/logs/app.log", "*/logs/*.log"]


def rest(folder: Path) -> None:
    """As if nothing had come into it, nor into what is below, for long."""
    for name, _inner, _files in os.walk(folder):
        os.utime(name, (1, 1))


@pytest.mark.parametrize("folders", [1, 3])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_file_that_comes_later_into_a_folder_that_was_there_is_found(
    tmp_path: Path, pattern: str, folders: int
) -> None:
    """In the lab, a web application that was installed with an empty log folder was shipped after a restart only."""
    logs = [tmp_path / ("web%d" % number) / "logs" / "app.log" for number in range(folders)]
    if "logs" not in pattern:
        logs = [log.parent.parent / log.name for log in logs]
    for log in logs:
        log.parent.mkdir(parents=True)
    drive = Drive(tmp_path, tmp_path / pattern)
    rest(tmp_path)
    drive.run(5)
    for log in logs:
        append(log, lines(str(log), 3))
    archive = drive.run(1.5)
    for log in logs:
        assert archive.of(log) == lines(str(log), 3)


def test_a_folder_that_comes_later_deep_below_is_found(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "elsewhere")
    drive = Drive(tmp_path, tmp_path / "a" / "**" / "app.log")
    rest(tmp_path)
    drive.run(5)
    deep, linked = tmp_path / "a" / "b" / "c" / "d" / "app.log", tmp_path / "a" / "link" / "app.log"
    deep.parent.mkdir(parents=True)
    append(deep, lines("deep", 3))
    append(linked, lines("linked", 3))
    archive = drive.run(2.5)
    assert archive.of(deep) == lines("deep", 3)
    assert archive.of(linked) == lines("linked", 3)


def test_a_file_that_takes_the_place_of_a_fifo_is_found(tmp_path: Path) -> None:
    log = tmp_path / "web" / "app.log"
    log.parent.mkdir()
    os.mkfifo(log)
    drive = Drive(tmp_path, tmp_path / "*" / "app.log")
    append(log.parent / "new", lines("a", 3))
    rest(tmp_path)
    drive.run(5)
    (log.parent / "new").rename(log)
    assert drive.run(2.5).of(log) == lines("a", 3)
