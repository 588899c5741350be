# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that go on in another folder: their rest is read, once, under the source that they began as."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .tailing import Drive, append, rename
from .test_tailer import lines


def make(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    append(path, data)
    return path


@pytest.mark.parametrize("pattern", ["*/app.log", "*/*.log*", "**/app.log"])
@pytest.mark.parametrize("rotations", [0, 1])
@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("later", [0, 1])
def test_a_folder_that_was_renamed_while_down_costs_and_doubles_nothing(
    tmp_path: Path, pattern: str, rotations: int, anew: bool, later: int
) -> None:
    log = make(tmp_path / "logs" / "web" / "app.log", lines("a", 50))
    moved = tmp_path / "logs" / "www" / "app.log"
    drive = Drive(tmp_path, tmp_path / "logs" / pattern)
    drive.run()
    written = lines("a", 50)
    for number in range(rotations):
        rename(log)
        append(log, lines("rotated", 50, number))
        written += lines("rotated", 50, number)
        drive.run(10)
    drive.stop()
    append(log, lines("b", 3))
    log.parent.rename(moved.parent)
    append(moved, lines("c", 3))
    written += lines("b", 3) + lines("c", 3)
    for _turn in range(later):
        rename(moved)
        append(moved, lines("later", 3))
    if anew:
        make(log, lines("anew", 3))
        written += lines("anew", 3)
    drive.begin()
    drive.run(10)
    append(moved.with_name("app.log.1") if later else moved, lines("d", 3))
    archive = drive.run(20)
    if later or anew:
        assert sorted(archive.of(log).splitlines()) == sorted((written + lines("d", 3)).splitlines())
    else:
        assert archive.of(log) == written + lines("d", 3)
    assert archive.of(moved) == lines("later", 3) * later


def test_a_file_that_was_rotated_where_its_folder_went_is_found_there_after_another_stop(tmp_path: Path) -> None:
    log, moved = make(tmp_path / "web" / "app.log", lines("a", 50)), tmp_path / "www" / "app.log"
    drive = Drive(tmp_path, tmp_path / "*" / "app.log")
    drive.run()
    drive.stop()
    log.parent.rename(moved.parent)
    append(moved, lines("b", 3))
    rename(moved)
    append(moved, b"part of a line")
    drive.begin()
    drive.stop()
    drive.begin()
    archive = drive.run(10)
    assert archive.of(log) == lines("a", 50) + lines("b", 3)


def test_an_empty_file_that_went_elsewhere_does_not_keep_the_next_one_waiting(tmp_path: Path) -> None:
    log = make(tmp_path / "web" / "app.log", b"")
    drive = Drive(tmp_path, tmp_path / "*" / "app.log")
    drive.run()
    drive.stop()
    log.parent.rename(tmp_path / "www")
    make(log, b"")
    append(tmp_path / "www" / "app.log", lines("a", 3))
    drive.begin()
    log.parent.rename(tmp_path / "third")
    append(tmp_path / "third" / "app.log", lines("b", 3))
    archive = drive.run(20)
    assert archive.of(tmp_path / "www" / "app.log") == lines("a", 3)
    assert archive.of(log) == lines("b", 3)


def test_the_rest_of_two_files_of_a_folder_that_was_renamed_is_read(tmp_path: Path) -> None:
    log = make(tmp_path / "web" / "app.log", lines("a", 50))
    drive = Drive(tmp_path, tmp_path / "*" / "app.log")
    drive.run()
    append(log, lines("b", 3))
    rename(log)
    append(log, lines("c", 3))
    while not drive.turn(ack=False):
        drive.now += 0.3
    drive.stop()
    log.parent.rename(tmp_path / "www")
    drive.begin()
    assert drive.run(10).of(log) == lines("a", 50) + lines("b", 3) + lines("c", 3)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("evicted", [False, True])
@pytest.mark.parametrize("glob", [False, True])
def test_a_file_that_has_only_its_name_in_another_folder_any_more_is_read_on(
    tmp_path: Path, linked: bool, evicted: bool, glob: bool, caplog: pytest.LogCaptureFixture
) -> None:
    log, other = make(tmp_path / "one" / "app.log", lines("a", 50)), tmp_path / "two" / "app.log"
    other.parent.mkdir()
    if linked:
        os.link(log, other)
    names = [tmp_path / "*" / "app.log"] if glob else [log, other]
    drive = Drive(tmp_path, *names, tmp_path / "many.*", descriptors=16)
    drive.run()
    if not evicted:
        drive.stop()
    else:
        for number in range(20):
            append(tmp_path / ("many.log%d" % number), b"one more\n")
        drive.run(5)
    append(log, lines("b", 3))
    if linked:
        log.unlink()
    else:
        log.rename(other)
    caplog.clear()
    caplog.set_level("INFO")
    if not evicted:
        drive.begin()
    drive.run(5)
    append(other, lines("c", 3))
    assert drive.run(5).of(log) == lines("a", 50) + lines("b", 3) + lines("c", 3)
    assert os.fsencode(other) not in drive.archive.lives
    assert not [message for message in caplog.messages if message.startswith(("Passing over", "Lost"))]
    assert len([message for message in caplog.messages if message.startswith("Found the rest of")]) == 1


@pytest.mark.parametrize("down", [False, True])
def test_a_finished_file_that_is_put_into_a_tailed_folder_is_not_read_again(tmp_path: Path, down: bool) -> None:
    log = make(tmp_path / "logs" / "app.log", lines("a", 50))
    drive = Drive(tmp_path, tmp_path / "logs" / "**" / "*.log*")
    drive.run()
    rename(log)
    append(log, lines("b", 3))
    drive.run(10)
    if down:
        drive.stop()
    (log.parent / "old").mkdir()
    log.with_name("app.log.1").rename(log.parent / "old" / "app-20260131.log")
    if down:
        drive.begin()
    for _turn in range(3):
        drive.run(100)
        make(log.parent / "old" / "stranger", b"")
    archive = drive.run(10)
    assert archive.of(log) == lines("a", 50) + lines("b", 3)
    assert list(archive.lives) == [os.fsencode(log)]
    append(log.parent / "old" / "app-20260131.log", b"late\n")
    assert drive.run(400).of(log).count(b"late\n") == 1


def test_a_finished_file_that_is_put_elsewhere_is_not_forgotten_while_it_is_there(tmp_path: Path) -> None:
    log = make(tmp_path / "web" / "app.log", lines("a", 50))
    drive = Drive(tmp_path, tmp_path / "*" / "app.log")
    drive.run()
    log.parent.rename(tmp_path / "www")
    drive.run()
    for record in drive.store.records[os.fsencode(log)]:
        record.seen = 1
    drive.run(4000)
    append(tmp_path / "www" / "app.log", lines("b", 3))
    drive.run()
    assert drive.archive.of(log) == lines("a", 50) + lines("b", 3)
    assert list(drive.archive.lives) == [os.fsencode(log)]


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("anew", [False, True])
def test_a_file_that_was_empty_before_its_folder_was_renamed_is_read(tmp_path: Path, down: bool, anew: bool) -> None:
    log, moved = make(tmp_path / "web" / "app.log", b""), tmp_path / "www" / "app.log"
    drive = Drive(tmp_path, tmp_path / "*" / "app.log")
    drive.run()
    if down:
        drive.stop()
    log.parent.rename(moved.parent)
    if anew:
        make(log, lines("anew", 3))
    append(moved, lines("a", 3))
    if down:
        drive.begin()
    archive = drive.run(20)
    append(moved, lines("b", 3))
    archive = drive.run(20)
    found = [archive.of(path).replace(lines("anew", 3) * anew, b"") for path in (log, moved)]
    assert sorted(found) == [b"", lines("a", 3) + lines("b", 3)]
    assert archive.of(log).count(lines("anew", 3)) == anew


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("down", [False, True])
def test_what_a_link_pointed_to_before_is_read_to_its_end(tmp_path: Path, folder: bool, down: bool) -> None:
    old, new = make(tmp_path / "1" / "app.log", lines("a", 50)), make(tmp_path / "2" / "app.log", b"")
    link = tmp_path / "current"
    link.symlink_to(old.parent if folder else old)
    log = link / "app.log" if folder else link
    drive = Drive(tmp_path, log)
    drive.run()
    if down:
        drive.stop()
    append(old, lines("b", 3))
    link.unlink()
    link.symlink_to(new.parent if folder else new)
    append(new, lines("c", 3))
    if down:
        drive.begin()
    drive.run()
    assert drive.archive.of(log) == lines("a", 50) + lines("b", 3) + lines("c", 3)
    drive.run(100)
    append(old, b"late\n")
    assert drive.run(400).of(log) == lines("a", 50) + lines("b", 3) + b"late\n" + lines("c", 3)
