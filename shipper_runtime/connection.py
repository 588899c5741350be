# SPDX-License-Identifier: GPL-3.0-or-later
"""The wire of one connection: what goes out, and what comes in, handed over as it arrives.

NATS's client protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol, headers as in ADR-4. nats-py
makes the connection and proves who we are; from there on it is read here, because that is where a consumer's time goes:
a large payload is received into the very bytes that are written to the archive.
"""

from __future__ import annotations

import asyncio
from typing import Callable

from .errors import printable
from .wire import Payload, Sendable

CLOSE_MOST = 2.0
UNREADABLE = {"Shipper-Unreadable": "1"}
"""The headers of a message whose own cannot be read: such a message is not one without headers."""

# What is received at once while no large message is on its way. Control lines are a few KiB at most.
_ROOM = 128 * 1024
# Room behind a large message, for the beginning of the next one.
_SLACK = 4096
# A message of more than this that is not whole yet is received in its own place.
_LARGE = 16 * 1024
# nats-server takes no payload above 64 MiB, and what it says is believed no further than that.
_DIGITS_MOST = 9
_CRLF = b"\r\n"
_VERSION = "NATS/1.0"
_CLOSED = "the server closed the connection"


class Message:
    """What was delivered. reply is empty without one. data is for its handler to keep and to change; headers is None
    without any, and then holds "Status" and "Description" too where the server says something by itself."""

    __slots__ = ("data", "headers", "reply", "subject")

    def __init__(self, subject: str, reply: str, data: Payload, headers: dict[str, str] | None = None) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self.headers = headers


Handler = Callable[[Message], None]


class _NotNats(Exception):
    """What came is not NATS's protocol."""


class Connection(asyncio.BufferedProtocol):
    """One that is made and authenticated. begin() with its transport and what was read of it before.

    lost(reason) is called once when it is over, complained(text) for each error that the server sends. received counts
    the bytes that came.
    """

    def __init__(self, lost: Callable[[str], None], complained: Callable[[str], None]) -> None:
        self.received = 0
        self._lost = lost
        self._complained = complained
        self._transport: asyncio.Transport | None = None
        self._handlers: dict[bytes, Handler] = {}
        self._numbers = 0
        self._paused: asyncio.Future[None] | None = None
        self._over = False
        self._gone: asyncio.Future[None] | None = None
        # What came and is not taken yet: [_begin, _end) of _buffer.
        self._buffer = bytearray(_ROOM)
        self._begin = self._end = 0
        # A large message on its way: its line, its bytes, how many of them are needed, and how many are there.
        self._line: list[bytes] = []
        self._body: bytearray | None = None
        self._need = self._have = 0
        self._view = memoryview(b"")

    def begin(self, transport: asyncio.Transport, received: bytes, ended: bool) -> None:
        """From here on what comes is read here; ended: the server has closed its side."""
        self._transport = transport
        self._gone = asyncio.get_running_loop().create_future()
        transport.set_protocol(self)
        if ended or transport.is_closing():
            self._fail(_CLOSED)
        while received and not self._over:
            with self.get_buffer(-1) as room:
                piece = received[: len(room)]
                room[: len(piece)] = piece
            self.buffer_updated(len(piece))
            received = received[len(piece) :]

    def subscribe(self, subject: str, handler: Handler) -> bytes:
        """Have handler called with each message, in order. What unsubscribe() takes."""
        self._numbers += 1
        number = b"%d" % self._numbers
        self._handlers[number] = handler
        self._write(b"SUB %s %s\r\n" % (subject.encode(), number))
        return number

    def unsubscribe(self, number: bytes) -> None:
        """No more messages of it."""
        if self._handlers.pop(number, None) is not None:
            self._write(b"UNSUB %s\r\n" % number)

    async def publish(self, subject: str, reply: str, payload: Sendable, headers: dict[str, str] | None) -> None:
        """Send a message; on return there is room for the next one, or the connection is over."""
        address = ("%s %s" % (subject, reply) if reply else subject).encode()
        if headers is None:
            self._write(b"PUB %s %d\r\n" % (address, len(payload)), payload, _CRLF)
        else:
            head = _packed(headers)
            line = b"HPUB %s %d %d\r\n" % (address, len(head), len(head) + len(payload))
            self._write(line + head, payload, _CRLF)
        while self._paused is not None:
            # What gives up waiting must not take the others' future with it.
            await asyncio.shield(self._paused)

    async def close(self) -> None:
        """Send what was written, if the server takes it quickly, and drop the connection."""
        self._over = True
        if self._transport is not None and self._gone is not None:
            self._transport.close()
            try:
                await asyncio.wait({self._gone}, timeout=CLOSE_MOST)
            finally:
                self._transport.abort()

    # What the transport calls.

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._body is not None:
            self._view = memoryview(self._body)[self._have :]
        else:
            self._view = memoryview(self._buffer)[self._end :]
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self.received += nbytes
        # The transport still has it, and bytes that are looked at cannot be cut.
        self._view.release()
        if self._over:
            # What still comes is dropped.
            self._begin = self._end = 0
            return
        try:
            if self._body is None:
                self._end += nbytes
            else:
                self._have += nbytes
                if self._have < self._need:
                    return
                self._finish(self._body)
            self._parse()
        except _NotNats as what:
            self._fail("this is not NATS's protocol: %s" % what)

    def pause_writing(self) -> None:
        if self._paused is None:
            self._paused = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._paused is not None:
            self._paused.set_result(None)
            self._paused = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_with(str(exc) if exc is not None else _CLOSED)
        self.resume_writing()
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    # How what came is read.

    def _parse(self) -> None:
        """Take what is whole. Raises _NotNats."""
        buffer = self._buffer
        while not self._over:
            eol = buffer.find(_CRLF, self._begin, self._end)
            if eol < 0:
                break
            # Of the protocol's white space the server sends only this; a subject may hold what others take for it.
            words = bytes(buffer[self._begin : eol]).split(b" ")
            if words[0] not in (b"MSG", b"HMSG"):
                self._begin = eol + len(_CRLF)
                self._control(words)
                continue
            begin, need = eol + len(_CRLF), _size(words) + len(_CRLF)
            if begin + need > self._end:
                if need > _LARGE:
                    self._receive_apart(words, begin, need)
                break
            self._begin = begin + need
            self._deliver(words, buffer[begin : begin + need])
        self._make_room()

    def _make_room(self) -> None:
        if self._begin == self._end:
            self._begin = self._end = 0
        elif len(self._buffer) - self._end < _ROOM // 2 and self._begin:
            left = self._buffer[self._begin : self._end]
            self._buffer[: len(left)] = left
            self._begin, self._end = 0, len(left)
        elif self._end == len(self._buffer):
            raise _NotNats("a line without an end")

    def _receive_apart(self, words: list[bytes], begin: int, need: int) -> None:
        body = bytearray(need + _SLACK)
        have = self._end - begin
        body[:have] = self._buffer[begin : self._end]
        self._line, self._body, self._need, self._have = words, body, need, have
        self._begin = self._end = 0

    def _finish(self, body: bytearray) -> None:
        need, have = self._need, self._have
        self._buffer[: have - need] = body[need:have]
        self._begin, self._end = 0, have - need
        self._body = None
        del body[need:]
        self._deliver(self._line, body)

    def _deliver(self, words: list[bytes], data: bytearray) -> None:
        """data ends with the protocol's CRLF."""
        if not data.endswith(_CRLF):
            raise _NotNats("a message longer than it says")
        del data[-len(_CRLF) :]
        headers = None
        if words[0] == b"HMSG":
            length = int(words[-2])
            headers = parse_headers(bytes(data[:length]))
            # Cheap, however much is behind it.
            del data[:length]
            del words[-2]
        handler = self._handlers.get(words[2])
        if handler is not None:
            handler(Message(_text(words[1]), _text(words[3]) if len(words) == 5 else "", data, headers))

    def _control(self, words: list[bytes]) -> None:
        kind = words[0]
        if kind == b"PING":
            self._write(b"PONG\r\n")
        elif kind == b"-ERR":
            text = printable(b" ".join(words[1:]).decode("utf-8", "replace").strip("'"))
            self._complained(text)
            if not text.startswith("Permissions Violation"):
                self._fail(text)
        elif kind not in (b"PONG", b"INFO", b"+OK"):
            raise _NotNats("%r" % kind[:100])

    def _write(self, *parts: Sendable) -> None:
        if self._transport is not None and not self._over:
            # Pythons from 3.12 on send the parts as they are, without a copy.
            self._transport.writelines(parts)

    def _fail(self, reason: str) -> None:
        self._end_with(reason)
        if self._transport is not None:
            self._transport.abort()

    def _end_with(self, reason: str) -> None:
        if not self._over:
            self._over = True
            self._body = None
            self._begin = self._end = 0
            self._lost(reason)


def _size(words: list[bytes]) -> int:
    """Of headers and payload: ``MSG subject number [reply] size`` or ``HMSG subject number [reply] headers size``."""
    has_headers = words[0] == b"HMSG"
    if len(words) - has_headers not in (4, 5) or not words[-1].isdigit() or len(words[-1]) > _DIGITS_MOST:
        raise _NotNats("%r" % words[:6])
    size = int(words[-1])
    if has_headers and not (words[-2].isdigit() and int(words[-2]) <= size):
        raise _NotNats("%r" % words[:6])
    return size


def parse_headers(raw: bytes) -> dict[str, str]:
    """The headers of a message, from ``NATS/1.0`` on; UNREADABLE where they do not begin so. A name that comes twice
    has its last value; what is no header is passed over."""
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    headers: dict[str, str] = {}
    if first != _VERSION:
        version, _space, status = first.partition(" ")
        code, _space, description = status.strip().partition(" ")
        if version != _VERSION or not code.isdigit():
            return dict(UNREADABLE)
        headers["Status"] = code
        if description:
            headers["Description"] = description
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers


def _packed(headers: dict[str, str]) -> bytes:
    return ("%s\r\n%s\r\n" % (_VERSION, "".join("%s: %s\r\n" % item for item in headers.items()))).encode()


def _text(subject: bytes) -> str:
    """Escaped where it is not UTF-8: then it is not a host's, and the escaped one is not either."""
    return subject.decode("utf-8", "backslashreplace")
