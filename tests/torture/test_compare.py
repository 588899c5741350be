# SPDX-License-Identifier: GPL-3.0-or-later
"""The torture's judgement: what it says about bytes that are missing, doubled or elsewhere."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest

from tests.torture.compare import Checker, by_source, diagnose, first_difference, list_archive

LINES = [b"%d line\r\n" % number for number in range(100)]
WRITTEN = b"".join(LINES)


def test_equal_bytes_have_no_difference() -> None:
    assert first_difference(WRITTEN, WRITTEN) is None
    assert diagnose(WRITTEN, WRITTEN) is None
    assert diagnose(b"", b"") is None


@pytest.mark.parametrize("at", [0, 1, 500, len(WRITTEN) - 1])
def test_the_first_difference_is_found(at: int) -> None:
    changed = bytearray(WRITTEN)
    changed[at] ^= 1
    assert first_difference(WRITTEN, bytes(changed)) == at
    assert first_difference(WRITTEN, WRITTEN[:at]) == at
    assert first_difference(WRITTEN[:at], WRITTEN) == at


def test_missing_lines_are_counted() -> None:
    found = diagnose(WRITTEN, b"".join(LINES[:10] + LINES[15:]))
    assert found is not None
    assert found.missing == (5, sum(map(len, LINES[10:15])))
    assert (found.doubled, found.foreign, found.moved) == ((0, 0), (0, 0), (0, 0))
    assert found.offset == sum(map(len, LINES[:10])) + 1  # both lines begin with a 1


def test_an_end_that_is_missing_is_missing() -> None:
    found = diagnose(WRITTEN, b"".join(LINES[:90]))
    assert found is not None
    assert found.missing == (10, sum(map(len, LINES[90:])))
    assert found.found == b""


def test_lines_that_come_twice_are_doubled() -> None:
    found = diagnose(WRITTEN, b"".join(LINES[:20] + LINES[10:]))
    assert found is not None
    assert found.doubled == (10, sum(map(len, LINES[10:20])))
    assert (found.missing, found.foreign, found.moved) == ((0, 0), (0, 0), (0, 0))


def test_lines_that_come_too_late_are_out_of_order() -> None:
    found = diagnose(WRITTEN, b"".join(LINES[:10] + LINES[12:50] + LINES[10:12] + LINES[50:]))
    assert found is not None
    assert found.moved == (2, sum(map(len, LINES[10:12])))
    assert (found.missing, found.doubled, found.foreign) == ((0, 0), (0, 0), (0, 0))


def test_a_line_that_comes_too_early_puts_only_itself_out_of_order() -> None:
    found = diagnose(WRITTEN, b"".join([*LINES[:10], LINES[99], *LINES[10:99]]))
    assert found is not None
    assert found.moved == (1, len(LINES[99]))
    doubled = diagnose(WRITTEN, b"".join([*LINES[:10], LINES[99], *LINES[10:]]))
    assert doubled is not None
    assert doubled.moved == (0, 0)
    assert doubled.doubled == (1, len(LINES[99]))


def test_lines_that_nobody_wrote_are_foreign() -> None:
    found = diagnose(WRITTEN, b"".join([*LINES[:10], b"strange\n", *LINES[10:]]))
    assert found is not None
    assert found.foreign == (1, len(b"strange\n"))


def test_equal_lines_are_not_out_of_order_because_one_is_missing() -> None:
    lines = [*LINES[:10], b"\n", *LINES[10:20], b"\n", *LINES[20:]]
    found = diagnose(b"".join(lines), b"".join(lines[:10] + lines[11:]))
    assert found is not None
    assert found.missing == (1, 1)
    assert found.moved == (0, 0)


def test_every_loss_is_told_from_every_doubling() -> None:
    chance = random.Random(5)
    for _turn in range(200):
        begin, end = sorted(chance.sample(range(101), 2))
        size = sum(map(len, LINES[begin:end]))
        less = diagnose(WRITTEN, b"".join(LINES[:begin] + LINES[end:]))
        more = diagnose(WRITTEN, b"".join(LINES[:end] + LINES[begin:]))
        assert less is not None and less.missing == (end - begin, size) and less.doubled == (0, 0)
        assert more is not None and more.doubled == (end - begin, size) and more.missing == (0, 0)


class TestChecker:
    @pytest.fixture
    def checker(self, tmp_path: Path) -> Checker:
        (tmp_path / "truth").write_bytes(WRITTEN)
        (tmp_path / "archive" / "web1" / "var").mkdir(parents=True)
        (tmp_path / "archive" / ".shipper").mkdir()
        (tmp_path / "archive" / ".shipper" / "ledger").touch()
        return Checker(tmp_path / "archive", tmp_path / "truth")

    def put(self, checker: Checker, number: int, data: bytes) -> None:
        (checker.directory / "web1" / "var" / ("app.log-%014d" % number)).write_bytes(data)

    def state(self, checker: Checker, length: int = len(WRITTEN)) -> str:
        looks = list_archive(checker.directory)
        sources = by_source(looks)
        assert list(sources) in ([], ["web1/var/app.log"])
        return checker.compare(sources.get("web1/var/app.log", []), looks, length)

    def test_files_in_name_order_are_the_bytes(self, checker: Checker) -> None:
        assert self.state(checker) == "short"
        self.put(checker, 2, WRITTEN[300:])
        assert self.state(checker) == "wrong"
        self.put(checker, 1, WRITTEN[100:300])
        self.put(checker, 0, WRITTEN[:100])
        assert self.state(checker) == "equal"
        assert self.state(checker, len(WRITTEN) - 1) == "wrong"
        assert self.state(checker, len(WRITTEN) + 1) == "short"

    def test_what_was_right_once_is_looked_at_again_when_it_has_changed(self, checker: Checker) -> None:
        self.put(checker, 1, WRITTEN)
        assert self.state(checker) == "equal"
        self.put(checker, 1, WRITTEN[:-2] + b"?\n")
        assert self.state(checker) == "wrong"
        found = checker.diagnose(["web1/var/app.log-%014d" % 1])
        assert found is not None and found.offset == len(WRITTEN) - 2

    def test_a_thorough_look_trusts_no_time_stamp(self, checker: Checker) -> None:
        self.put(checker, 1, WRITTEN)
        assert self.state(checker) == "equal"
        path = checker.directory / "web1" / "var" / ("app.log-%014d" % 1)
        before = path.stat()
        with open(path, "r+b") as file:
            file.write(b"?")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert self.state(checker) == "equal"
        checker.forget()
        assert self.state(checker) == "wrong"

    def test_compressed_files_are_compared_by_what_they_hold(self, checker: Checker) -> None:
        folder = checker.directory / "web1" / "var"
        self.put(checker, 1, WRITTEN[:100])
        members = [gzip.compress(WRITTEN[begin : begin + 50]) for begin in range(100, len(WRITTEN), 50)]
        path = folder / ("app.log-%014d.gz" % 2)
        path.write_bytes(b"".join(members))
        assert self.state(checker) == "equal"
        assert checker.right["web1/var/" + path.name].size == len(WRITTEN) - 100
        # Nothing can be read behind what is torn: that is not the end of it.
        for rest in (members[0][:-1], b"?", bytes(3)):
            path.write_bytes(b"".join(members) + rest)
            assert self.state(checker) == "short"
        path.write_bytes(b"".join(members[:-1]))
        assert self.state(checker) == "short"
        path.write_bytes(b"".join([*members, members[0]]))
        assert self.state(checker) == "wrong"
        assert checker.diagnose(["web1/var/app.log-%014d" % 1, "web1/var/" + path.name]) is not None
