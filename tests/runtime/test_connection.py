# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server sends, in whatever pieces it comes, and what is sent to it."""

from __future__ import annotations

import asyncio
from typing import Any, Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shipper_runtime.connection import UNREADABLE, Connection, Message, parse_headers

SUBJECT = st.text("abc.\x0b\t\u00e9", min_size=1, max_size=12).filter(lambda text: "\t" not in text)
HEADERS = st.none() | st.dictionaries(
    st.text("abc-", min_size=1, max_size=8), st.text("xyz 1:", max_size=20), max_size=3
)
# Small ones, those about as large as what is received at once, and those that get a place of their own.
SIZES = st.integers(0, 40) | st.sampled_from([16_383, 16_384, 16_400, 70_000, 131_000, 140_000, 300_000])


class Transport:
    """What a connection wrote, and whether it was dropped."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def set_protocol(self, protocol: object) -> None:
        pass

    def is_closing(self) -> bool:
        return self.aborted

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.written += b"".join(parts)

    def abort(self) -> None:
        self.aborted = True


class Lab:
    """A connection on such a transport, with what it said."""

    def __init__(self, before: bytes = b"") -> None:
        self.lost: list[str] = []
        self.complaints: list[str] = []
        self.messages: list[Message] = []
        self.transport: Any = Transport()
        self.connection = Connection(self.lost.append, self.complaints.append)
        self.connection.begin(self.transport, before, False)
        self.number = self.connection.subscribe("shipper.>", self.messages.append)

    def receive(self, data: bytes, most: int = 1 << 30) -> None:
        """As a transport does: into the room that there is, in pieces of at most so many bytes."""
        while data:
            room = self.connection.get_buffer(-1)
            assert len(room)
            piece = data[: min(most, len(room))]
            room[: len(piece)] = piece
            self.connection.buffer_updated(len(piece))
            data = data[len(piece) :]


def in_loop(body: Callable[[], Any]) -> Any:
    async def main() -> Any:
        result = body()
        return await result if asyncio.iscoroutine(result) else result

    return asyncio.run(main())


def sent(subject: str, reply: str, data: bytes, headers: dict[str, str] | None, number: bytes = b"1") -> bytes:
    """As nats-server writes a message."""
    address = b" ".join(part for part in (subject.encode(), number, reply.encode()) if part)
    if headers is None:
        return b"MSG %s %d\r\n%s\r\n" % (address, len(data), data)
    head = b"NATS/1.0\r\n%s\r\n" % "".join("%s: %s\r\n" % item for item in headers.items()).encode()
    return b"HMSG %s %d %d\r\n%s%s\r\n" % (address, len(head), len(head) + len(data), head, data)


@given(
    st.lists(st.tuples(SUBJECT, st.sampled_from(["", "_INBOX.x"]), SIZES, HEADERS), min_size=1, max_size=6),
    st.integers(1, 200_000),
)
@example([("a", "", 140_000, None), ("b", "", 5, {"a": "1"})], 1000)
@example([("a", "", 300_000, {"a": "1"}), ("b", "", 300_000, None), ("c", "", 1, None)], 200_000)
def test_messages_are_the_same_in_whatever_pieces_they_come(
    messages: list[tuple[str, str, int, dict[str, str] | None]], most: int
) -> None:
    def body() -> None:
        lab = Lab()
        contents = [bytes([number]) * 7 + b"\r\nMSG a 1 3\r\n" for number in range(len(messages))]
        payloads = [(content * (size // 10 + 1))[:size] for content, (*_rest, size, _h) in zip(contents, messages)]
        stream = b"".join(
            sent(subject, reply, data, headers) for data, (subject, reply, _size, headers) in zip(payloads, messages)
        )
        lab.receive(stream, max(most, len(stream) // 2000))
        assert [(m.subject, m.reply, m.data) for m in lab.messages] == [
            (subject, reply, data) for data, (subject, reply, *_rest) in zip(payloads, messages)
        ]
        wanted = [
            headers if headers is None else {name: value.strip() for name, value in headers.items()}
            for *_rest, headers in messages
        ]
        assert [m.headers for m in lab.messages] == wanted
        assert not lab.lost

    in_loop(body)


def test_what_was_received_before_it_began_is_read_first() -> None:
    lab: Lab = in_loop(lambda: Lab(b"PING\r\nPI"))
    lab.receive(b"NG\r\n")
    assert lab.transport.written == b"PONG\r\nSUB shipper.> 1\r\nPONG\r\n"


@pytest.mark.parametrize(("closing", "ended"), [(True, False), (False, True)])
def test_a_connection_that_is_over_already_is_noticed(closing: bool, ended: bool) -> None:
    def body() -> list[str]:
        lost: list[str] = []
        transport: Any = Transport()
        transport.aborted = closing
        Connection(lost.append, lost.append).begin(transport, b"PING\r\n", ended)
        assert transport.aborted and not transport.written
        return lost

    assert in_loop(body) == ["the server closed the connection"]


def test_messages_of_what_is_not_subscribed_any_more_go_nowhere() -> None:
    lab: Lab = in_loop(Lab)
    lab.receive(sent("a", "", b"1", None) + sent("a", "", b"2", None, b"77"))
    lab.connection.unsubscribe(lab.number)
    lab.connection.unsubscribe(lab.number)
    lab.receive(sent("a", "", b"3", None))
    assert [m.data for m in lab.messages] == [b"1"]
    assert lab.transport.written.endswith(b"SUB shipper.> 1\r\nUNSUB 1\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 x y 3\r\n",
        b"MSG a 1 -3\r\n",
        b"MSG a 1 3\r\nabcdef\r\n",
        b"MSG a 1 9999999999999999999999\r\n",
        b"HMSG a 1 9 3\r\n",
        b"HMSG a 1 x 3\r\n",
        b"x" * 200_000,
    ],
)
def test_what_is_not_the_protocol_ends_the_connection_with_a_reason(line: bytes) -> None:
    lab: Lab = in_loop(Lab)
    lab.receive(line)
    assert len(lab.lost) == 1 and lab.lost[0].startswith("this is not NATS's protocol: ")
    assert lab.transport.aborted and not lab.messages
    assert len(lab.lost[0]) < 400


def test_only_a_missing_permission_leaves_the_connection_alive() -> None:
    lab: Lab = in_loop(Lab)
    lab.receive(b"-ERR 'Permissions Violation for Publish to \"a b\"'\r\n+OK\r\nINFO {}\r\nPONG\r\n")
    assert lab.complaints == ['Permissions Violation for Publish to "a b"'] and not lab.lost
    lab.receive(b"-ERR 'Stale Connection'\r\n" + sent("a", "", b"1", None))
    assert lab.lost == ["Stale Connection"] and lab.transport.aborted and not lab.messages


def test_what_a_server_complains_of_cannot_write_to_a_terminal() -> None:
    lab: Lab = in_loop(Lab)
    lab.receive(b"-ERR '\x1b[2Ja\nb\xff'\r\n")
    assert lab.lost == ["\\x1b[2Ja\\nb\ufffd"]


def test_what_is_published_waits_while_the_server_does_not_take_it() -> None:
    async def body() -> None:
        lab = Lab()
        before = lab.transport.written
        await lab.connection.publish("a.b", "", b"x", None)
        lab.connection.pause_writing()
        waiting = [asyncio.ensure_future(lab.connection.publish("a.b", "r.1", b"yy", {"H": "1"})) for _turn in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert not waiting[1].done()
        lab.connection.resume_writing()
        await waiting[1]
        again = b"HPUB a.b r.1 18 20\r\nNATS/1.0\r\nH: 1\r\n\r\nyy\r\n"
        assert lab.transport.written == before + b"PUB a.b 1\r\nx\r\n" + 2 * again

    in_loop(body)


def test_who_waits_for_room_is_not_left_behind_by_a_connection_that_breaks() -> None:
    async def body() -> None:
        lab = Lab()
        lab.connection.pause_writing()
        waiting = asyncio.ensure_future(lab.connection.publish("a", "", b"x", None))
        await asyncio.sleep(0)
        lab.connection.connection_lost(ConnectionResetError("gone"))
        await asyncio.wait_for(waiting, 1)
        assert lab.lost == ["gone"]

    in_loop(body)


@pytest.mark.parametrize(
    ("raw", "headers"),
    [
        (b"NATS/1.0\r\n\r\n", {}),
        (b"NATS/1.0\r\nA:1\r\nB: \t2 \r\nA: 3\r\n\r\n", {"A": "3", "B": "2"}),
        (b"NATS/1.0\r\nno colon\r\nA: \xff\r\n\r\n", {"A": "\ufffd"}),
        (b"NATS/1.0 503\r\n\r\n", {"Status": "503"}),
        (b"NATS/1.0 100 Idle Heartbeat\r\nX: 1\r\n\r\n", {"Status": "100", "Description": "Idle Heartbeat", "X": "1"}),
        (b"NATS/1.0 \xff\r\n\r\n", UNREADABLE),
        (b"NATS/2.0\r\nA: 1\r\n\r\n", UNREADABLE),
        (b"N", UNREADABLE),
        (b"", UNREADABLE),
    ],
)
def test_headers(raw: bytes, headers: dict[str, str]) -> None:
    assert parse_headers(raw) == headers
