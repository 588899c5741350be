# SPDX-License-Identifier: GPL-3.0-or-later
"""Where shipper logs begins, what it makes of messages, and how it waits for its reader."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from shipper_runtime.errors import SettingError
from shipper_runtime.logs import Lines, Output, begins, since
from shipper_runtime.wire import FINISHED, MORE, Span, encode

LIFE = "0123456789abcdef" * 2
OTHER = "f" * 32


def headers(begin: int, end: int, partial: str | None = None, life: str = LIFE) -> dict[str, str]:
    return encode("web1", Span(b"/var/log/" + life[:1].encode(), life, begin, end, 0, "0" * 32, partial))


@pytest.mark.parametrize(("text", "ago"), [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400), ("0s", 0)])
def test_since_is_so_long_ago(text: str, ago: int) -> None:
    begin = since(text)
    assert begin is not None
    assert 0 <= time.time() - ago - begin < 5


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T10:00:00Z", 1769853600.0),
        ("2026-01-31t10:00:00.25z", 1769853600.25),
        ("2026-01-31T12:00:00.123456789+02:00", 1769853600.123456789),
        ("2026-01-31 08:30:00-01:30", 1769853600.0),
        # What cannot be asked for is the nearest that can.
        ("1960-01-01T00:00:00Z", 0.0),
        ("9999-12-31T23:59:59-01:00", 253402300799.0),
        ("999999999w", 0.0),
    ],
)
def test_since_is_a_time_of_rfc_3339(text: str, moment: float) -> None:
    assert since(text) == moment
    assert str(begins(since(text), 0)["opt_start_time"]).endswith("Z")


@pytest.mark.parametrize(
    "text",
    ["", "10", "10x", "m", "-1h", "1h30m", "yesterday", "2026-01-31", "2026-01-31T10:00:00", "2026-13-01T10:00:00Z",
     "2026-01-31T10:00:00+99:00", "2026-01-31T10:00:00Z ", "\u0661m"],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(SettingError, match=r"^--since=.*such as 10m"):
        since(text)


def test_a_consumer_begins_where_it_is_told_or_behind_what_was_printed() -> None:
    assert since(None) is None
    assert begins(None, 0) == {"deliver_policy": "all"}
    assert begins(None, 7) == {"deliver_policy": "by_start_sequence", "opt_start_seq": 8}
    assert begins(1769853600.25, 7) == {"deliver_policy": "by_start_sequence", "opt_start_seq": 8}
    assert begins(1769853600.25, 0) == {
        "deliver_policy": "by_start_time",
        "opt_start_time": "2026-01-31T10:00:00.250000Z",
    }


def test_lines_are_the_bytes_that_were_sent() -> None:
    lines = Lines("web1")
    assert lines.take(None, b"plain \xff\0\r", 1) == b"plain \xff\0\r\n"
    assert lines.take({}, b"", 2) == b"\n"
    assert lines.take(headers(0, 4), b"a\nb", 3) == b"a\nb\n"


def test_a_line_in_pieces_is_printed_whole_and_lines_of_other_sources_not_in_its_midst() -> None:
    lines = Lines("web1")
    assert lines.take(headers(0, 3, MORE), b"abc", 1) == b""
    assert lines.take(headers(0, 2, None, OTHER), b"x", 2) == b"x\n"
    assert lines.take(headers(3, 5), b"d", 3) == b"abcd\n"
    assert lines.take(headers(5, 8, FINISHED), b"end", 4) == b"end\n"


def test_a_span_that_comes_twice_is_printed_once() -> None:
    lines = Lines("web1")
    assert lines.take(headers(0, 4), b"a\nb", 1) == b"a\nb\n"
    assert lines.take(headers(0, 4), b"a\nb", 2) == b""
    assert lines.take(headers(2, 6), b"b\nc", 3) == b"c\n"


def test_a_line_whose_end_has_not_come_is_the_rest() -> None:
    lines = Lines("web1")
    assert lines.rest() == b""
    lines.take(headers(0, 3, MORE), b"abc", 1)
    lines.take(headers(0, 2, MORE, OTHER), b"xy", 1)
    assert lines.rest() == b"abc\nxy"


def test_a_message_that_breaks_the_wire_format_is_left_out_and_counted() -> None:
    lines = Lines("web1")
    assert lines.take({"Shipper-Life": LIFE}, b"x", 1) == b""
    assert lines.take(headers(0, 9), b"x", 1) == b""
    assert lines.rejected == 2


def test_a_stream_that_is_read_again_shows_nothing_twice() -> None:
    lines = Lines("web1")
    lines.take(None, b"plain", 5)
    lines.take(headers(0, 2), b"a", 6)
    lines.again()
    assert lines.take(None, b"plain", 5) == b""
    assert lines.take(headers(0, 2), b"a", 8) == b""
    assert lines.take(None, b"new", 9) == b"new\n"
    assert lines.take(headers(2, 4), b"b", 9) == b"b\n"


def test_a_pipe_that_nobody_reads_stops_no_loop() -> None:
    data = os.urandom(1_000_000)

    async def main() -> bytes:
        reader, writer = os.pipe()
        writing = asyncio.ensure_future(Output(writer).write(data))
        await asyncio.wait({writing}, timeout=0.2)
        assert not writing.done()
        read = b""
        while len(read) < len(data):
            read += await asyncio.get_running_loop().run_in_executor(None, os.read, reader, 65536)
        await writing
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            await Output(writer).write(b"x")
        os.close(writer)
        return read

    assert asyncio.run(main()) == data


def test_a_file_takes_all_at_once(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        asyncio.run(Output(file.fileno()).write(b"x" * 100_000))
    assert (tmp_path / "out").read_bytes() == b"x" * 100_000
