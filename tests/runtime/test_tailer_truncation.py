# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are truncated and have grown again before anybody looked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from shipper_runtime.positions import NAME

from .tailing import Drive, append, copytruncate, rename
from .test_tailer import lines

HEALTHY = b"GET /health 200\n"


@pytest.mark.parametrize("banner", [b"", b"# the same each time\n" * 10])
@pytest.mark.parametrize("stuck", [False, True])
def test_a_file_that_grew_beyond_the_offset_with_the_same_bytes_before_it_is_told_by_its_head(
    tmp_path: Path, banner: bytes, stuck: bool
) -> None:
    log = tmp_path / "app.log"
    first = banner + b"begun at 10:00\n" + HEALTHY * 200
    append(log, first)
    drive = Drive(tmp_path, log)
    drive.run()
    append(log, b"last\n")
    if stuck:
        drive.turn(ack=False)
    copytruncate(log)
    again = banner + b"begun at 11:00\n" + HEALTHY * 300
    append(log, again)
    assert drive.run().of(log) == first + b"last\n" + again


@pytest.mark.parametrize("count", [150, 290])
def test_a_file_that_is_shorter_than_it_was_seen_to_be_was_truncated_though_all_its_lines_are_alike(
    tmp_path: Path, count: int
) -> None:
    log = tmp_path / "app.log"
    append(log, HEALTHY * 300)
    drive = Drive(tmp_path, log)
    for _turn in range(10):
        drive.turn()
        drive.now += 0.01
    assert 0 < len(drive.archive.of(log)) < len(HEALTHY) * 100
    copytruncate(log)
    append(log, HEALTHY * count)
    assert drive.run().of(log) == HEALTHY * (300 + count)


def test_a_file_whose_writer_took_back_what_was_not_read_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, HEALTHY * 200 + b"half a li")
    drive = Drive(tmp_path, log)
    drive.run()
    os.truncate(log, len(HEALTHY) * 200)
    append(log, b"new\n")
    assert drive.run().of(log) == HEALTHY * 200 + b"new\n"


@pytest.mark.parametrize("down", ["", "before", "between"])
@pytest.mark.parametrize("count", [1, 1000])
def test_nuls_that_were_written_after_a_truncation_are_shipped(tmp_path: Path, down: str, count: int) -> None:
    """A writer that goes on at its old offset leaves as many as the file was long; fewer are the application's own."""
    log = tmp_path / "app.log"
    append(log, lines("a", 1000))
    drive = Drive(tmp_path, log)
    drive.run()
    if down == "before":
        drive.stop()
    copytruncate(log)
    if down != "before":
        drive.run()
    if down == "between":
        drive.stop()
    append(log, b"\0" * count + b"\n\0 twice\n")
    if down:
        drive.begin()
    assert drive.run().of(log) == lines("a", 1000) + b"\0" * count + b"\n\0 twice\n"


def test_a_file_that_is_truncated_twice_before_its_line_is_complete_is_followed(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, b"")
    drive = Drive(tmp_path, log)
    rename(log)
    append(log, b"")
    drive.crash()
    append(log, b"one ")
    drive.begin()
    drive.crash()
    copytruncate(log)
    append(log, b"two ")
    drive.begin()
    copytruncate(log)
    drive.run(4)
    append(log, b"last words\n")
    log.unlink()
    append(log, b"three\n")
    assert drive.run(10).of(log) == b"one two last words\nthree\n"


def test_positions_of_a_version_that_did_not_know_how_long_a_file_was_are_understood(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, lines("a", 3))
    drive = Drive(tmp_path, log)
    drive.run()
    drive.stop()
    positions = Path(drive.state) / NAME
    document = json.loads(positions.read_bytes())
    for life in document["lives"]:
        del life["nuls"]
    positions.write_text(json.dumps(document))
    append(log, lines("b", 3))
    drive.begin()
    assert drive.run().of(log) == lines("a", 3) + lines("b", 3)
