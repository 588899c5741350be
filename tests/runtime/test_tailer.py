# SPDX-License-Identifier: GPL-3.0-or-later
"""Rotations and what else happens to log files, one trap a test."""

from __future__ import annotations

import bz2
import json
import lzma
import os
import re
import socket
from pathlib import Path

import pytest

from shipper_runtime import siblings
from shipper_runtime.errors import SettingError
from shipper_runtime.positions import NAME
from shipper_runtime.rotation import Rotated
from shipper_runtime.siblings import Folders, Sibling

from .tailing import Archive, Drive, append, compress, copytruncate, rename


def lines(name: str, count: int, start: int = 0) -> bytes:
    return b"".join(b"%s line %d\n" % (name.encode(), number) for number in range(start, start + count))


def test_a_file_is_read_from_its_beginning_and_on(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 20))
    drive = Drive(tmp_path, log)
    drive.run()
    append(log, lines("b", 20))
    assert drive.run().of(log) == lines("a", 20) + lines("b", 20)
    assert all(not bytes(block.payload).endswith(b"\n") for block in drive.archive.blocks)


def test_a_file_that_appears_later_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "app.log"
    drive = Drive(tmp_path, log)
    drive.run()
    assert caplog.messages == ["Waiting for %s: it does not exist yet" % log]
    append(log, lines("a", 3))
    assert drive.run().of(log) == lines("a", 3)


def test_renamed_and_made_anew(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 5))
    drive = Drive(tmp_path, log)
    drive.run()
    append(log, lines("b", 5))
    rename(log)
    append(log, lines("c", 5))
    assert drive.run().of(log) == lines("a", 5) + lines("b", 5) + lines("c", 5)


def test_a_copytruncate_while_running_reads_the_rest_from_the_copy(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 5))
    drive = Drive(tmp_path, log)
    drive.run()
    append(log, lines("b", 5))
    copytruncate(log)
    append(log, lines("c", 50))
    assert drive.run().of(log) == lines("a", 5) + lines("b", 5) + lines("c", 50)


@pytest.mark.parametrize("before", [[], [3], [200, 1]])
@pytest.mark.parametrize("count", [1, 200])
@pytest.mark.parametrize("more", [0, 2])
@pytest.mark.parametrize("rotated", [False, True])
def test_a_disk_that_has_another_number_after_a_reboot_doubles_nothing(
    tmp_path: Path, before: list[int], count: int, more: int, rotated: bool
) -> None:
    """However little of a file has been read: in the lab, a rebooted host sent a file's only line a second time."""
    log = tmp_path / "app.log"
    drive = Drive(tmp_path, log)
    written = b""

    def write(tag: str, lines_of_it: int) -> None:
        nonlocal written
        append(log, lines(tag, lines_of_it))
        written += lines(tag, lines_of_it)

    for number, of_it in enumerate(before):
        write("before%d" % number, of_it)
        drive.run()
        rename(log)
    write("a", count)
    drive.run()
    drive.stop()
    positions = Path(drive.state) / "positions.json"
    saved = positions.read_bytes()
    renumbered = re.sub(rb'"device": (\d+)', lambda found: b'"device": %d' % (int(found.group(1)) + 1), saved)
    assert renumbered != saved
    positions.write_bytes(renumbered)
    write("b", more)
    if rotated:
        rename(log)
        write("c", 3)
    drive.begin()
    assert drive.run().of(log) == written
    assert len(drive.archive.lives[os.fsencode(log)]) == len(before) + 1 + rotated


@pytest.mark.parametrize("moved", [False, True])
def test_a_file_that_took_anothers_place_while_down_is_read_from_its_beginning(tmp_path: Path, moved: bool) -> None:
    """Though all lines are the same; and whether the other one was deleted or is in another folder."""
    log = tmp_path / "app.log"
    append(log, b"heartbeat ok\n" * 200)
    drive = Drive(tmp_path, log)
    drive.run()
    drive.stop()
    if moved:
        (tmp_path / "old").mkdir()
        log.rename(tmp_path / "old" / "app.log.1")
    new = tmp_path / "new"
    append(new, b"heartbeat ok\n" * 300)
    new.replace(log)
    drive.begin()
    assert drive.run().of(log) == b"heartbeat ok\n" * 500


def test_two_rotations_while_down_are_read_oldest_first(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 5))
    drive = Drive(tmp_path, log)
    drive.run()
    drive.stop()
    append(log, lines("b", 5))
    rename(log)
    append(log, lines("c", 5))
    rename(log)
    append(log, lines("d", 5))
    drive.begin()
    assert drive.run().of(log) == lines("a", 5) + lines("b", 5) + lines("c", 5) + lines("d", 5)


def test_two_copytruncates_while_down_are_read_oldest_first(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 5))
    drive = Drive(tmp_path, log)
    drive.run()
    drive.stop()
    append(log, lines("b", 5))
    copytruncate(log)
    append(log, lines("c", 5))
    copytruncate(log)
    append(log, lines("d", 15))
    drive.begin()
    assert drive.run().of(log) == lines("a", 5) + lines("b", 5) + lines("c", 5) + lines("d", 15)


def test_deleted_and_made_anew(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 5))
    drive = Drive(tmp_path, log)
    drive.run()
    append(log, lines("b", 5))
    log.unlink()
    append(log, lines("c", 5))
    assert drive.run().of(log) == lines("a", 5) + lines("b", 5) + lines("c", 5)


def test_ten_rotations_in_a_row_while_down_and_while_running(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    drive = Drive(tmp_path, log)
    written = b""
    for how, down in ((rename, False), (copytruncate, False), (rename, True), (copytruncate, True)):
        if down:
            drive.stop()
        for number in range(10):
            data = lines("%s %s" % (how.__name__, down), 3, number)
            append(log, data)
            written += data
            how(log, 99)
        # Not the same bytes as before: nothing but a time stamp would tell that file from its predecessor.
        end = b"end of %s %d\n" % (how.__name__.encode(), down)
        append(log, end)
        written += end
        if down:
            drive.begin()
        assert drive.run(10).of(log) == written


def test_a_file_that_is_renamed_while_it_is_looked_for_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shifted by a rotation from a name that comes late in the folder to one that comes early."""
    for number in (1, 8, 9):
        append(tmp_path / ("app.log.%d" % number), b"%d\n" % number)
    status = (tmp_path / "app.log.9").stat()
    look = siblings.look

    def look_and_rename(path: bytes, how: Rotated | None = None) -> Sibling | None:
        if path.endswith(b".8"):
            monkeypatch.setattr(siblings, "look", look)
            (tmp_path / "app.log.9").rename(tmp_path / "app.log.10")
        return look(path, how)

    monkeypatch.setattr(siblings, "look", look_and_rename)
    found = Folders().with_key(os.fsencode(tmp_path / "app.log.9"), (status.st_dev, status.st_ino))
    assert found is not None
    assert found.path.endswith(b"app.log.10")


def test_what_is_not_acknowledged_is_behind_also_while_it_is_under_way(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    drive = Drive(tmp_path, log)
    data = lines("a", 10)
    append(log, data + b"not complete")
    source = drive.tailer.sources[os.fsencode(log)]
    for _turn in range(10):
        drive.turn(ack=False)
        drive.now += 0.3
    assert source.in_flight
    assert source.behind() >= len(data)
    drive.run()
    assert source.behind() == 0


@pytest.mark.parametrize("made", ["whole", "half"])
def test_a_rotation_while_the_copy_of_the_one_before_is_looked_for_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    log = tmp_path / "app.log"
    append(log, lines("read", 20, 0))
    drive = Drive(tmp_path, log)
    drive.run()
    written = lines("read", 20, 0) + lines("not read", 20, 0)
    append(log, lines("not read", 20, 0))
    copy = log.with_name("app.log.1")
    if made == "whole":
        copytruncate(log)
    else:
        copy.write_bytes(written[:100])
    snapshot = Folders.snapshot

    def look_and_rotate(folders: Folders, path: bytes) -> tuple[Sibling | None, list[Sibling]]:
        nonlocal written
        seen = snapshot(folders, path)
        monkeypatch.setattr(Folders, "snapshot", snapshot)
        if made == "half":
            copy.write_bytes(written)
            os.truncate(log, 0)
        else:
            append(log, b"between\n")
            written += b"between\n"
            copytruncate(log)
        return seen

    monkeypatch.setattr(Folders, "snapshot", look_and_rotate)
    drive.turn()
    append(log, b"end\n")
    assert drive.run(20).of(log) == written + b"end\n"


def test_the_rest_of_a_file_compressed_while_down_is_read_as_the_same_life(tmp_path: Path) -> None:
    for ending, opener in ((".bz2", bz2.open), (".xz", lzma.open), (".gz", None)):
        folder = tmp_path / ending[1:]
        folder.mkdir()
        log = folder / "app.log"
        append(log, lines("a", 3000))
        drive = Drive(folder, log)
        for _turn in range(20):
            drive.turn()
            drive.now += 0.01
        drive.stop()
        assert 0 < len(drive.archive.of(log)) < len(lines("a", 3000))
        append(log, lines("b", 5))
        rename(log)
        if opener is None:
            compress(folder / "app.log.1")
        else:
            with opener(folder / ("app.log.1" + ending), "wb") as target:
                target.write((folder / "app.log.1").read_bytes())
            (folder / "app.log.1").unlink()
        append(log, lines("c", 5))
        drive.begin()
        assert drive.run().of(log) == lines("a", 3000) + lines("b", 5) + lines("c", 5)
        assert len(drive.archive.lives[os.fsencode(log)]) == 2


def test_what_cannot_be_read_any_more_is_said_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 5))
    drive = Drive(tmp_path, log)
    drive.run()
    drive.stop()
    append(log, lines("lost", 5))
    (tmp_path / "other").write_bytes(b"keeps the inode from being given to the new file\n")
    log.rename(tmp_path / "app.log.1.zst")
    (tmp_path / "app.log.1.zst").write_bytes(b"(\xb5/\xfd compressed")
    append(log, lines("b", 5))
    drive.begin()
    assert drive.run().of(log) == lines("a", 5) + lines("b", 5)
    assert "Lost %s behind offset 45: the file that was being read is not there any more" % log in caplog.messages


def test_nuls_that_a_writer_without_append_leaves_are_skipped_after_a_truncation_only(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    with log.open("wb", buffering=0) as writer:
        writer.write(b"\0\0 begins with NULs\n" + lines("a", 2000))
        drive = Drive(tmp_path, log)
        drive.run()
        os.truncate(log, 0)
        drive.run(0.5)
        writer.write(b"goes on\n\0\0 with NULs\n")
        archive = drive.run()
    assert archive.of(log) == b"\0\0 begins with NULs\n" + lines("a", 2000) + b"goes on\n\0\0 with NULs\n"
    assert archive.blocks[-1].span.begin >= len(lines("a", 2000))


def test_nuls_are_skipped_also_when_the_writer_goes_on_only_after_a_restart(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    with log.open("wb", buffering=0) as writer:
        writer.write(lines("a", 20))
        drive = Drive(tmp_path, log)
        drive.run()
        os.truncate(log, 0)
        drive.run()
        drive.stop()
        writer.write(b"goes on\n")
        drive.begin()
        assert drive.run().of(log) == lines("a", 20) + b"goes on\n"


def test_a_copy_in_the_making_is_no_new_file(tmp_path: Path) -> None:
    log, copy = tmp_path / "app.log", tmp_path / "app-20260131.log"
    append(log, lines("a", 50))
    drive = Drive(tmp_path, tmp_path / "app*.log")
    drive.run()
    content = log.read_bytes()
    for size in (0, 100, 300, len(content)):
        copy.write_bytes(content[:size])
        drive.run(2.5)
    os.truncate(log, 0)
    append(log, lines("b", 50))
    archive = drive.run(30)
    assert archive.of(log) == lines("a", 50) + lines("b", 50)
    assert list(archive.lives) == [os.fsencode(log)]


def test_a_copy_in_the_making_of_a_file_that_was_never_seen_is_no_new_file(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 3))
    drive = Drive(tmp_path, log)
    drive.run()
    drive.stop()
    rename(log)
    append(log, lines("b", 3))
    (tmp_path / "app.log.1").rename(tmp_path / "app.log.2")
    append(tmp_path / "app.log.1", lines("b", 2))
    drive.begin()
    drive.run(0.9)
    append(tmp_path / "app.log.1", lines("b", 1, 2))
    os.truncate(log, 0)
    append(log, lines("c", 3))
    assert drive.run().of(log) == lines("a", 3) + lines("b", 3) + lines("c", 3)


def test_files_that_begin_with_the_same_banner_are_all_read(tmp_path: Path) -> None:
    banner = b"#" * 2000 + b"\n"
    names = ["app.log", "app-2.log", "app.2.log", "other.log"]
    for name in names:
        append(tmp_path / name, banner)
    drive = Drive(tmp_path, tmp_path / "*.log")
    drive.run()
    for name in names:
        append(tmp_path / name, lines(name, 5))
    archive = drive.run(20)
    for name in names:
        assert archive.of(tmp_path / name) == banner + lines(name, 5)


def test_a_new_file_that_begins_as_another_one_is_read_even_if_it_never_grows(tmp_path: Path) -> None:
    append(tmp_path / "app.log", lines("same", 5))
    append(tmp_path / "app-2.log", lines("same", 3))
    drive = Drive(tmp_path, tmp_path / "*.log")
    assert drive.run(20).of(tmp_path / "app-2.log") == lines("same", 3)


def test_a_file_under_two_names_is_read_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 5))
    os.link(log, tmp_path / "hard.log")
    (tmp_path / "soft.log").symlink_to(log)
    drive = Drive(tmp_path, log, tmp_path / "hard.log", tmp_path / "*.log")
    archive = drive.run()
    append(tmp_path / "hard.log", lines("b", 5))
    assert drive.run().of(log) == lines("a", 5) + lines("b", 5)
    assert list(archive.lives) == [os.fsencode(log)]
    assert "Passing over %s: it is the same file as %s" % (tmp_path / "hard.log", log) in caplog.messages


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "device"])
def test_what_is_not_a_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd"
    listener = socket.socket(socket.AF_UNIX)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        os.chdir(tmp_path)
        listener.bind("odd")
    else:
        path = Path("/dev/null")
    listener.close()
    with pytest.raises(SettingError, match=r"SHIPPER_FILE=.*: it is a.*, not a file") as raised:
        Drive(tmp_path, path)
    assert "\n" not in str(raised.value)


def test_what_is_not_a_file_and_turns_up_later_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "app.log"
    drive = Drive(tmp_path, log, tmp_path / "*.pipe")
    os.mkfifo(log)
    os.mkfifo(tmp_path / "other.pipe")
    (tmp_path / "folder.pipe").mkdir()
    drive.run(5)
    said = [message for message in caplog.messages if "Refused" in message]
    assert said == [
        "Refused %s: it is a FIFO, not a file" % (tmp_path / "other.pipe"),
        "Refused %s: it is a FIFO, not a file" % log,
    ] or said == [
        "Refused %s: it is a FIFO, not a file" % log,
        "Refused %s: it is a FIFO, not a file" % (tmp_path / "other.pipe"),
    ]
    log.unlink()
    append(log, lines("a", 3))
    assert drive.run().of(log) == lines("a", 3)


def test_a_glob_reads_rotated_names_as_older_lives_of_the_file_and_no_compressed_ones(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    for name in "abc":
        append(log, lines(name, 3))
        rename(log)
    append(log, lines("d", 3))
    compress(tmp_path / "app.log.3")
    drive = Drive(tmp_path, tmp_path / "app.log*")
    archive = drive.run()
    rename(log)
    append(log, lines("e", 3))
    drive.run()
    assert archive.of(log) == lines("b", 3) + lines("c", 3) + lines("d", 3) + lines("e", 3)
    assert list(archive.lives) == [os.fsencode(log)]


def test_an_explicit_path_does_not_bring_its_rotated_siblings_along(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("old", 3))
    rename(log)
    append(log, lines("a", 3))
    drive = Drive(tmp_path, log)
    drive.run()
    rename(log)
    append(log, lines("b", 3))
    assert drive.run().of(log) == lines("a", 3) + lines("b", 3)


def test_new_files_of_a_glob_are_found_within_a_second_and_read_from_their_beginning(tmp_path: Path) -> None:
    drive = Drive(tmp_path, tmp_path / "*" / "*.log", start="end")
    drive.run()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        append(tmp_path / name / "app.log", lines(name, 3))
        append(tmp_path / name / ".hidden.log", lines(name, 3))
    archive = drive.run(1.5)
    assert {path: archive.of(os.fsdecode(path)) for path in archive.lives} == {
        os.fsencode(tmp_path / name / "app.log"): lines(name, 3) for name in ("one", "two")
    }


def test_start_at_the_end_concerns_what_was_there_at_the_very_first_start_only(tmp_path: Path) -> None:
    log, later = tmp_path / "app.log", tmp_path / "later.log"
    append(log, lines("old", 50) + b"begun ")
    drive = Drive(tmp_path, log, later, start="end")
    drive.run()
    append(log, b"and ended\n")
    append(later, lines("later", 3))
    drive.run()
    drive.stop()
    append(log, lines("a", 3))
    drive.begin()
    archive = drive.run()
    assert archive.of(log) == b"begun and ended\n" + lines("a", 3)
    assert archive.of(later) == lines("later", 3)


def test_start_at_the_end_survives_a_crash_before_anything_was_read(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("old", 50))
    drive = Drive(tmp_path, log, start="end")
    drive.crash()
    append(log, lines("a", 3))
    drive.begin()
    assert drive.run().of(log) == lines("a", 3)


def test_a_partial_last_line_is_held_and_shipped_when_its_file_is_finished(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, b"whole\npart")
    drive = Drive(tmp_path, log)
    assert drive.run(10).of(log) == b"whole\n"
    rename(log)
    assert drive.run(10).of(log) == b"whole\n"
    append(tmp_path / "app.log.1", b"ly")
    append(log, b"new\n")
    drive.run(0.5)
    assert drive.archive.of(log) == b"whole\n"
    assert drive.run(3).of(log) == b"whole\npartlynew\n"
    assert [block.span.partial for block in drive.archive.blocks] == [None, "end", None]


def test_a_deleted_file_is_released_after_a_minute_with_its_last_line(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, b"whole\npart")
    drive = Drive(tmp_path, log)
    drive.run()
    log.unlink()
    assert drive.run(50).of(log) == b"whole\n"
    assert open_files(tmp_path) == {str(log) + " (deleted)"}
    assert drive.run(80).of(log) == b"whole\npart"
    assert open_files(tmp_path) == set()
    append(log, lines("a", 3))
    assert drive.run().of(log) == b"whole\npart" + lines("a", 3)


def open_files(folder: Path) -> set[str]:
    """The log files in folder that this process has open."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink("/proc/self/fd/" + fd)
        except FileNotFoundError:
            continue
        if path.startswith(str(folder) + "/") and "/state/" not in path:
            found.add(path)
    return found


def test_a_rotated_file_is_released_after_a_minute_and_late_bytes_are_still_read(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 3))
    drive = Drive(tmp_path, log)
    drive.run()
    rename(log)
    append(log, lines("b", 3))
    drive.run()
    append(tmp_path / "app.log.1", b"soon\n")
    drive.run()
    assert b"soon\n" in drive.archive.of(log)
    drive.run(70)
    assert open_files(tmp_path) == {str(log)}
    rename(log)
    append(tmp_path / "app.log.2", b"late\n")
    drive.run(20)
    assert drive.archive.of(log) == lines("a", 3) + b"soon\nlate\n" + lines("b", 3)


def test_a_writer_that_stays_with_the_old_file_does_not_keep_the_new_one_waiting(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 3))
    drive = Drive(tmp_path, log)
    drive.run()
    rename(log)
    append(log, b"new\n")
    old = lines("a", 3)
    for number in range(100):
        append(tmp_path / "app.log.1", b"old %d\n" % number)
        old += b"old %d\n" % number
        drive.now += 0.1
        drive.turn()
        if b"new\n" in drive.archive.of(log):
            break
    assert 40 < number < 80
    append(tmp_path / "app.log.1", b"older\n")
    assert drive.run().of(log) == old + b"older\nnew\n"


def test_more_files_than_descriptors_are_all_read(tmp_path: Path) -> None:
    logs = [tmp_path / ("%d.log" % number) for number in range(100)]
    drive = Drive(tmp_path, tmp_path / "*.log", descriptors=16)
    for round in range(3):
        for log in logs:
            append(log, lines(log.name, 2, round))
        drive.run(2)
        assert len(open_files(tmp_path)) <= 16
    for log in logs:
        rename(log)
        append(log, b"new\n")
    archive = drive.run(20)
    for log in logs:
        assert archive.of(log) == b"".join(lines(log.name, 2, round) for round in range(3)) + b"new\n"


def test_a_line_too_long_for_a_message_comes_in_pieces_and_one_too_long_for_a_block_whole(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, b"a\n" + b"x" * 90 + b"\n" + b"y" * 300 + b"\nb\n")
    drive = Drive(tmp_path, log)
    drive.run()
    assert drive.archive.of(log) == log.read_bytes()
    assert [(len(block.payload), block.span.partial) for block in drive.archive.blocks] == [
        (1, None),
        (90, None),
        (96, "more"),
        (96, "more"),
        (96, "more"),
        (12 + 2, None),
    ]


def test_a_block_stays_the_same_until_it_is_acknowledged(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, b"a\n")
    drive = Drive(tmp_path, log)
    while not drive.turn(ack=False):
        drive.now += 0.1
    append(log, b"b\n")
    source = drive.tailer.sources[os.fsencode(log)]
    block = drive.pending[0][1]
    assert source.read(64, 96, drive.now + 5) is block
    copytruncate(log)
    append(log, b"c\n")
    assert source.read(64, 96, drive.now + 5) is block
    drive.ack()
    assert drive.run().of(log) == b"a\nb\nc\n"


def test_a_released_block_is_cut_anew(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, b"a\n" * 20)
    drive = Drive(tmp_path, log)
    while not drive.turn(ack=False):
        drive.now += 0.1
    source, block = drive.pending.pop()
    source.release(block)
    again = source.read(16, 16, drive.now)
    assert again is not None and len(again.payload) == 15


def test_rotations_are_seen_and_files_kept_open_while_nothing_can_be_sent(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    drive = Drive(tmp_path, log)
    written = b""
    for number in range(5):
        append(log, lines("a", 3, number))
        written += lines("a", 3, number)
        drive.now += 1.5
        drive.tailer.scan(drive.now)
        rename(log)
        drive.now += 1.5
        drive.tailer.scan(drive.now)
        (tmp_path / "app.log.1").unlink()
    append(log, b"end\n")
    assert drive.run().of(log) == written + b"end\n"


def test_a_file_that_may_not_be_read_yet_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    log = tmp_path / "app.log"
    append(log, lines("a", 3))
    log.chmod(0)
    drive = Drive(tmp_path, log)
    drive.run()
    assert caplog.messages == ["Waiting for %s: permission denied" % log]
    log.chmod(0o600)
    assert drive.run().of(log) == lines("a", 3)


def test_a_folder_that_is_gone_for_a_while_costs_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    folder.mkdir()
    log = folder / "app.log"
    append(log, lines("a", 3))
    drive = Drive(tmp_path, log)
    drive.run()
    drive.stop()
    folder.rename(tmp_path / "elsewhere")
    drive.begin()
    drive.run(100)
    (tmp_path / "elsewhere").rename(folder)
    append(log, lines("b", 3))
    assert drive.run().of(log) == lines("a", 3) + lines("b", 3)


def test_records_of_paths_that_are_not_configured_any_more_are_kept(tmp_path: Path) -> None:
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    append(one, lines("one", 3))
    append(two, lines("two", 3))
    drive = Drive(tmp_path, one, two)
    drive.run()
    for patterns in ([str(one)], [str(one), str(two)]):
        drive.stop()
        drive.patterns = patterns
        drive.begin()
        drive.run()
    append(two, b"more\n")
    assert drive.run().of(two) == lines("two", 3) + b"more\n"
    assert len(drive.archive.lives[os.fsencode(two)]) == 1


def test_sources_of_a_glob_whose_files_are_gone_are_forgotten(tmp_path: Path) -> None:
    drive = Drive(tmp_path, tmp_path / "*.log")
    for number in range(20):
        log = tmp_path / ("%d.log" % number)
        append(log, b"a\n")
        # Looking for files paces itself by how long it takes, which on a busy machine may be long.
        while len(drive.archive.lives) <= number and drive.now < 100_000:
            drive.run(2)
        log.unlink()
    while drive.tailer.sources and drive.now < 100_000:
        drive.run(100)
    assert not drive.tailer.sources
    assert not drive.store.records
    assert len(drive.archive.lives) == 20


def test_a_compressed_path_that_is_named_is_taken_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "app.log.gz"
    append(log, b"not\ncompressed\n")
    assert Drive(tmp_path, log).run().of(log) == b"not\ncompressed\n"


def test_odd_bytes_in_names_and_lines_pass_through(tmp_path: Path) -> None:
    log = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 \n.log"))
    data = b"\0\n\r\n\n\xff\xfe\n" + bytes(range(256)) + b"\n"
    append(log, data)
    drive = Drive(tmp_path, log)
    drive.run()
    drive.stop()
    drive.begin()
    append(log, data)
    assert drive.run().of(log) == data * 2


def give_inode(drive: Drive, inode: int, path: Path) -> None:
    """What is remembered, as if the file system had given a deleted file's inode to path."""
    positions = Path(drive.state) / NAME
    document = json.loads(positions.read_bytes())
    for life in document["lives"]:
        if life["inode"] == inode:
            life["inode"] = path.stat().st_ino
    positions.write_text(json.dumps(document))


def test_a_compressed_file_with_the_inode_of_an_empty_one_is_not_read_again(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 3))
    drive = Drive(tmp_path, log)
    rename(log)
    append(log, b"")
    drive.run()
    drive.stop()
    inode = log.stat().st_ino
    rename(log)
    compress(tmp_path / "app.log.1")
    give_inode(drive, inode, compress(tmp_path / "app.log.2"))
    append(log, lines("b", 3))
    drive.begin()
    assert drive.run().of(log) == lines("a", 3) + lines("b", 3)


@pytest.mark.parametrize("names", [("a.log", "b.log"), ("b.log", "a.log")])
def test_a_file_with_the_inode_of_another_paths_deleted_file_is_not_read_again(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    deleted, kept = (tmp_path / name for name in names)
    drive = Drive(tmp_path, tmp_path / "a.log", tmp_path / "b.log")
    for log in (deleted, kept):
        append(log, lines("first of %s" % log.name, 30))
    drive.run()
    for log in (deleted, kept):
        rename(log)
        append(log, lines("second of %s" % log.name, 30))
    drive.run(10)
    drive.stop()
    old = deleted.with_name(deleted.name + ".1")
    inode = old.stat().st_ino
    old.unlink()
    give_inode(drive, inode, kept.with_name(kept.name + ".1"))
    drive.begin()
    drive.run(10)
    for log in (deleted, kept):
        copytruncate(log)
        append(log, lines("third of %s" % log.name, 30))
    archive = drive.run(10)
    for log in (deleted, kept):
        assert archive.of(log) == b"".join(
            lines("%s of %s" % (each, log.name), 30) for each in ("first", "second", "third")
        )


def test_a_file_whose_inode_the_next_one_was_given_does_not_keep_that_waiting(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 3))
    drive = Drive(tmp_path, log)
    drive.run()
    drive.stop()
    inode = log.stat().st_ino
    log.unlink()
    append(log, lines("b", 3))
    rename(log)
    give_inode(drive, inode, tmp_path / "app.log.1")
    drive.begin()
    drive.run()
    append(log, lines("c", 3))
    assert drive.run().of(log) == lines("a", 3) + lines("b", 3) + lines("c", 3)


def test_files_with_the_inodes_of_an_empty_and_of_a_compressed_one_keep_their_order(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, b"")
    drive = Drive(tmp_path, log)
    empty = log.stat().st_ino
    rename(log)
    append(log, lines("a", 3))
    drive.crash()
    drive.begin()
    drive.crash()
    compressed = log.stat().st_ino
    rename(log)
    append(log, lines("b", 3))
    compress(tmp_path / "app.log.1")
    (tmp_path / "app.log.2").unlink()
    rename(log)
    append(log, lines("c", 3))
    give_inode(drive, empty, tmp_path / "app.log.1")
    give_inode(drive, compressed, log)
    drive.begin()
    assert drive.run().of(log) == lines("a", 3) + lines("b", 3) + lines("c", 3)


def test_a_file_rotated_while_down_after_the_one_before_it_was_deleted_is_read(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 3))
    drive = Drive(tmp_path, log)
    drive.run()
    log.unlink()
    drive.run(70)
    drive.stop()
    append(log, lines("b", 3))
    rename(log)
    drive.begin()
    drive.run()
    append(log, lines("c", 3))
    assert drive.run().of(log) == lines("a", 3) + lines("b", 3) + lines("c", 3)


def test_a_copy_with_the_inode_of_a_finished_empty_file_keeps_its_place(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, b"")
    drive = Drive(tmp_path, log)
    inode = log.stat().st_ino
    rename(log)
    append(log, lines("a", 3))
    drive.run()
    drive.stop()
    copytruncate(log)
    compress(tmp_path / "app.log.2")
    append(log, lines("b", 3))
    copytruncate(log)
    give_inode(drive, inode, tmp_path / "app.log.1")
    append(log, lines("c", 3))
    drive.begin()
    assert drive.run().of(log) == lines("a", 3) + lines("b", 3) + lines("c", 3)


def test_a_file_that_nobody_named_is_not_shipped_for_an_empty_one_whose_inode_it_was_given(tmp_path: Path) -> None:
    log, secret = tmp_path / "app.log", tmp_path / "secret.txt"
    append(log, b"")
    drive = Drive(tmp_path, log)
    inode = log.stat().st_ino
    drive.run()
    drive.stop()
    log.unlink()
    append(secret, lines("secret", 3))
    give_inode(drive, inode, secret)
    drive.begin()
    drive.run(10)
    append(log, lines("a", 3))
    assert drive.run(10).of(log) == lines("a", 3)


def test_the_rest_of_a_file_is_found_though_an_empty_one_had_the_inode(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, b"")
    drive = Drive(tmp_path, log)
    inode = log.stat().st_ino
    rename(log)
    append(log, lines("a", 3))
    rename(log)
    append(log, lines("b", 3))
    compress(tmp_path / "app.log.2")
    drive.turn(ack=False)
    drive.now += 0.3
    drive.turn(ack=False)
    drive.stop()
    give_inode(drive, inode, compress(tmp_path / "app.log.1"))
    drive.begin()
    assert drive.run().of(log) == lines("a", 3) + lines("b", 3)


@pytest.mark.parametrize("down", [False, True])
def test_a_finished_file_compressed_among_many_deletions_is_not_read_again(tmp_path: Path, down: bool) -> None:
    log = tmp_path / "app.log"
    written = b""
    drive = Drive(tmp_path, log)
    for number in range(8):
        append(log, lines("a", 3, 3 * number))
        written += lines("a", 3, 3 * number)
        drive.run()
        if number < 2:
            rename(log)
        else:
            log.unlink()
    append(log, lines("b", 3))
    drive.run()
    if down:
        drive.stop()
    compress(tmp_path / "app.log.1")
    if down:
        drive.begin()
    drive.turn()
    drive.now += 70
    drive.turn()
    log.unlink()
    append(log, lines("c", 3))
    assert drive.run().of(log) == written + lines("b", 3) + lines("c", 3)


def test_a_file_is_finished_only_once_its_last_block_has_arrived(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, b"part")
    drive = Drive(tmp_path, log)
    rename(log)
    append(log, b"new\n")
    drive.turn()
    drive.now += 0.3
    drive.turn()
    drive.now += 70
    assert drive.turn(ack=False) == 1
    drive.archive = Archive()
    drive.stop()
    compress(tmp_path / "app.log.1")
    drive.begin()
    assert drive.run().of(log) == b"partnew\n"


def test_a_glob_takes_a_file_whose_number_is_a_part_of_its_name(tmp_path: Path) -> None:
    """worker-2 is no rotated name of worker, as worker.2 would be."""
    worker = tmp_path / "worker"
    append(worker, lines("a", 5))
    drive = Drive(tmp_path, tmp_path / "worker*")
    drive.run()
    for name in ("worker-2", "worker_4"):
        append(tmp_path / name, lines(name, 5))
    archive = drive.run()
    for name in ("worker-2", "worker_4"):
        assert archive.of(tmp_path / name) == lines(name, 5)
    assert archive.of(worker) == lines("a", 5)
