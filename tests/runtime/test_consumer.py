# SPDX-License-Identifier: GPL-3.0-or-later
"""From messages to files, without a connection."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from shipper_runtime import addresses, tally
from shipper_runtime import consumer as consumer_module
from shipper_runtime.connection import Message
from shipper_runtime.consumer import Consumer
from shipper_runtime.settings import consumer_settings
from shipper_runtime.wire import Span, encode

HOST = "web1.example.net"


def consumer_in(directory: Path, **more: str) -> Consumer:
    env = {"NATS_URL": "localhost", "SHIPPER_SUBJECT": "shipper", "SHIPPER_OUTPUT": "log-%Y"}
    return Consumer(consumer_settings({**env, "SHIPPER_DIRECTORY": str(directory), **more}, "a1"))


def block(begin: int, data: bytes) -> Message:
    span = Span(b"/var/log/a", "0" * 32, begin, begin + len(data), 0, "0" * 32)
    return Message("shipper.p0." + HOST, "", data[:-1], encode(HOST, span))


def hand_over(consumer: Consumer, *messages: Message) -> None:
    """As a connection does: one after the other, and then the event loop goes on."""

    async def deliver() -> None:
        take = consumer.handler(0)
        for message in messages:
            take(message)
        await asyncio.sleep(0)

    asyncio.run(deliver())


def written(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((directory / HOST).glob("log-*")))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Makes the disk full, or not."""
    write, is_full = os.write, [False]

    def write_or_fail(fd: int, data: bytes) -> int:
        if is_full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(os, "write", write_or_fail)

    def fill(full: bool) -> None:
        is_full[0] = full

    return fill


def test_what_was_handed_over_at_once_is_written_when_the_loop_goes_on(tmp_path: Path) -> None:
    consumer = consumer_in(tmp_path)
    with closing(consumer.archive):
        hand_over(consumer, block(0, b"a\n"), block(2, b"b\n"), Message("shipper.p0." + HOST, "", b"plain"))
        assert written(tmp_path) == b"a\nb\nplain\n"


def test_a_full_disk_takes_bounded_memory_and_every_byte_that_is_dropped_is_counted(
    tmp_path: Path, disk: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(consumer_module, "IN_HAND_MOST", 5000)
    consumer = consumer_in(tmp_path)
    line = b"x" * 99 + b"\n"
    with closing(consumer.archive):
        hand_over(consumer, block(0, line))
        disk(True)
        hand_over(consumer, *(block(number * 100, line) for number in range(1, 100)))
        assert 5000 < consumer.archive.in_hand < 5500
        assert written(tmp_path) == line
        consumer.tick()
        disk(False)
        consumer.tick()
        hand_over(consumer, block(10000, b"after\n"))
        kept = written(tmp_path)
        assert kept.endswith(b"after\n")
        dropped = consumer.tally.totals[tally.DROPPED]
        assert dropped > 0
        assert consumer.tally.totals[tally.MISSING] == dropped * 100 == 10006 - len(kept)
        said = [message.split(":")[0] for message in caplog.messages if str(tmp_path) in message]
        assert said == ["Cannot write to %s" % tmp_path, "Writing to %s again" % tmp_path]


def test_a_fault_in_one_message_is_counted_and_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    consumer = consumer_in(tmp_path)
    broken = Message("shipper.p0.web2", "", b"")
    broken.data = None  # type: ignore[assignment]  # what no connection can deliver
    with closing(consumer.archive):
        hand_over(consumer, broken, block(0, b"a\n"))
        assert written(tmp_path) == b"a\n"
        assert consumer.tally.totals[tally.REJECTED] == 1
        assert any("Rejecting messages on shipper.p0.web2: fault of this program" in line for line in caplog.messages)


def test_more_sources_and_hosts_than_are_remembered_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "_CACHED_MOST", 2)
    consumer = consumer_in(tmp_path, SHIPPER_OUTPUT="{source}.%Y")
    with closing(consumer.archive):
        for host in ("a", "b", "c", "a"):
            for source in (b"/1", b"/2", b"/3", b"/1"):
                headers = encode(host, Span(source, source[1:].hex() * 16, 0, 2, 0, "0" * 32))
                hand_over(consumer, Message("shipper.p0." + host, "", b"x", headers))
    assert sorted(path.parent.name + path.stem for path in tmp_path.rglob("*.*")) == [
        host + source for host in "abc" for source in "123"
    ]
