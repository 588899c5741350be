# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed blocks, and the files that are made of them."""

from __future__ import annotations

import contextlib
import gzip
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper_runtime.content import Content, Members, Raw, content
from shipper_runtime.errors import WireError
from shipper_runtime.packing import MAGIC, Packed, pack, received, unpack
from shipper_runtime.wire import Span

blocks = st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=8)


def write(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


@contextlib.contextmanager
def members(path: Path) -> Iterator[Members]:
    with path.open("rb") as file:
        yield Members(file.fileno(), path.stat().st_size)


@given(st.binary(min_size=1), st.sampled_from([b"", b"\n"]), st.integers(1, 9))
def test_a_member_is_gzip_and_holds_its_parts(data: bytes, newline: bytes, level: int) -> None:
    member = pack(level, memoryview(data), newline)
    assert gzip.decompress(member) == data + newline
    packed = Packed(member, len(data + newline))
    assert (packed.plain(), len(packed)) == (data + newline, len(member))
    assert pack(level, data + newline) == member


def test_its_header_is_as_docs_wire_says() -> None:
    member = pack(1, b"a line\n")
    assert member[:16].hex(" ") == "1f 8b 08 04 00 00 00 00 00 ff 08 00 4c 53 04 00"
    assert struct.unpack("<I", member[16:20]) == (len(member),)
    assert struct.unpack("<I", member[-4:]) == (7,)


GOOD = pack(1, b"x" * 1000)


@pytest.mark.parametrize(
    ("data", "size", "reason"),
    [
        (b"", 1, "not a gzip member"),
        (GOOD[:27], 1000, "not a gzip member"),
        (GOOD[:-1], 1000, "not a gzip member"),
        (GOOD + b"\0", 1000, "not a gzip member"),
        (GOOD + GOOD, 1000, "not a gzip member"),
        (gzip.compress(b"x" * 1000), 1000, "not a gzip member"),
        (GOOD, 999, "length and offsets disagree"),
    ],
)
def test_what_is_not_one_is_refused_unopened(data: bytes, size: int, reason: str) -> None:
    with pytest.raises(WireError) as refused:
        Packed(bytearray(data), size)
    assert refused.value.reason == reason


@pytest.mark.parametrize("at", [20, 25, len(GOOD) - 8, len(GOOD) - 5])
def test_what_is_damaged_is_found_when_it_is_unpacked(at: int) -> None:
    damaged = bytearray(GOOD)
    damaged[at] ^= 0xFF
    with pytest.raises(WireError, match="damaged gzip member"):
        Packed(damaged, 1000).plain()


def test_no_more_is_unpacked_than_was_promised() -> None:
    """However much there is: 1 GB would not fit where this runs."""
    bomb = bytearray(pack(9, b"\0" * 50_000_000))
    bomb[-4:] = struct.pack("<I", 10)
    with pytest.raises(WireError, match="damaged gzip member"):
        unpack(bomb, 10)


def test_a_message_is_packed_if_it_says_so() -> None:
    span = Span(b"/log", "0" * 32, 5, 9, 0, "0" * 32)
    assert received(span, b"abc") == b"abc"
    packed = received(span._replace(packed=True), pack(1, b"abc\n"))
    assert isinstance(packed, Packed) and packed.plain() == b"abc\n"


@given(blocks, st.data())
def test_members_are_read_as_what_they_hold(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes], draw: st.DataObject
) -> None:
    packed = [pack(1, each) for each in data]
    path = write(tmp_path_factory.getbasetemp() / "members", *packed)
    whole = b"".join(data)
    with members(path) as there:
        assert (there.end, there.size, there.torn) == (path.stat().st_size, len(whole), False)
        begin, end = sorted((draw.draw(st.integers(0, len(whole) + 5)), draw.draw(st.integers(0, len(whole) + 5))))
        assert there.read(begin, end) == whole[begin:end]
        offset = place = 0
        boundaries = {0: 0}
        for each, member in zip(data, packed):
            offset, place = offset + len(member), place + len(each)
            boundaries[place] = offset
        for place in range(len(whole) + 2):
            assert there.offset(place) == boundaries.get(place)
        assert {there.place(offset) for offset in boundaries.values()} == set(boundaries)
        assert there.sound(0) == there.end


@given(blocks, st.integers(1, 10_000), st.booleans())
def test_what_is_torn_ends_behind_the_last_whole_member(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes], cut: int, zeros: bool
) -> None:
    whole = b"".join(pack(1, each) for each in data)
    last = pack(1, b"the last one")
    torn = last[: 1 + cut % (len(last) - 1)]
    with members(write(tmp_path_factory.getbasetemp() / "torn", whole, bytes(len(torn)) if zeros else torn)) as there:
        assert (there.end, there.size, there.torn) == (len(whole), sum(map(len, data)), True)


@pytest.mark.parametrize("rest", [b"a line\n", gzip.compress(b"a line\n")])
def test_what_somebody_else_has_put_there_is_not_torn(tmp_path: Path, rest: bytes) -> None:
    with members(write(tmp_path / "file", GOOD, rest)) as there:
        assert (there.end, there.size, there.torn) == (len(GOOD), 1000, False)


def test_what_is_damaged_never_looks_like_anything_and_is_not_sound(tmp_path: Path) -> None:
    first, second, third = (pack(1, letter * 100) for letter in (b"a", b"b", b"c"))
    damaged = bytearray(second)
    damaged[-8] ^= 1
    with members(write(tmp_path / "file", first, damaged, third)) as there:
        assert there.read(0, 300) == b"a" * 100 + bytes(100) + b"c" * 100
        assert there.sound(0) == there.sound(len(first)) == len(first)
        assert there.sound(len(first + second)) == len(first + second + third)


def test_a_file_as_it_is_has_offsets_for_places(tmp_path: Path) -> None:
    path = write(tmp_path / "file", b"0123456789")
    with path.open("rb") as file:
        there: Content = Raw(file.fileno(), 8)
        assert (there.end, there.size, there.torn) == (8, 8, False)
        assert there.read(2, 5) == b"234"
        assert (there.offset(3), there.place(3), there.sound(3)) == (3, 3, 8)


def test_a_file_that_becomes_shorter_while_it_is_read_ends_where_it_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "file", GOOD, GOOD)
    for cut in (len(GOOD) + 3, 2 * len(GOOD) - 1):
        os.truncate(path, cut)
        with path.open("rb") as file:
            assert Members(file.fileno(), 10 * len(GOOD)).end == len(GOOD)


@pytest.mark.parametrize(
    ("name", "data", "packed", "kind"),
    [
        (b"web1/log.gz", GOOD, True, Members),
        (b"web1/log.gz", GOOD, False, Members),
        (b"web1/log.gz", GOOD[:9], False, Members),
        (b"web1/log.gz", b"", True, Members),
        (b"web1/log.gz", b"a line\n", False, Raw),
        (b"web1/log", GOOD, True, Raw),
    ],
)
def test_what_a_file_is_does_not_depend_on_what_is_set_now(
    tmp_path: Path, name: bytes, data: bytes, packed: bool, kind: type
) -> None:
    path = write(tmp_path / "file", data)
    with path.open("rb") as file:
        assert isinstance(content(file.fileno(), name, len(data), packed), kind)


def test_nothing_is_made_of_a_file_that_only_begins_like_one(tmp_path: Path) -> None:
    with members(write(tmp_path / "file", MAGIC, struct.pack("<I", 5), b"\0" * 100)) as there:
        assert (there.end, there.size, there.torn) == (0, 0, True)
