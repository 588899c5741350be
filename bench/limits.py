# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be beaten: the same bytes copied, published and fetched by loops that do nothing else.

They speak the wire by themselves over a blocking socket, without a client library between.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from harness import BLOCK, STREAM, SUBJECT, Figure

_INBOX = b"_INBOX.limit"


def copy(source: Path, target: Path) -> Figure:
    """Read, write, sync."""
    started = time.monotonic()
    cpu = time.process_time()
    with source.open("rb", buffering=0) as reading, target.open("wb", buffering=0) as writing:
        while True:
            block = reading.read(BLOCK)
            if not block:
                break
            writing.write(block)
        os.fsync(writing.fileno())
    return Figure(time.monotonic() - started, source.stat().st_size, {"copy": time.process_time() - cpu}, True)


def blocks(source: Path) -> list[bytes]:
    """The file in blocks as a producer makes them: up to 512 KiB, cut behind a newline, that newline left out."""
    data = source.read_bytes()
    made, begin = [], 0
    while begin < len(data):
        end = data.rfind(b"\n", begin, begin + BLOCK) + 1
        made.append(data[begin : end - 1])
        begin = end
    return made


def publish(port: int, ready: list[bytes]) -> Figure:
    """Publish ready-made blocks, and wait for each acknowledgement."""
    with _connected(port) as connection:
        connection.sendall(b"SUB %s.1 1\r\n" % _INBOX)
        started = time.monotonic()
        cpu = time.process_time()
        for block in ready:
            connection.sendall(b"PUB %s %s.1 %d\r\n" % (SUBJECT.encode(), _INBOX, len(block)))
            connection.sendall(block)
            connection.sendall(b"\r\n")
            answer = b""
            while answer.count(b"\r\n") < 2:
                answer += connection.recv(65536)
            if b'"seq":' not in answer:
                raise SystemExit("publish: %r" % answer)
        seconds = time.monotonic() - started
    return Figure(seconds, sum(map(len, ready)) + len(ready), {"loop": time.process_time() - cpu}, True)


def fetch(port: int, size: int) -> Figure:
    """Fetch what the stream has, block for block, and drop it; size is when it is all."""
    with _connected(port) as connection:
        config = {"durable_name": "limit", "ack_policy": "none", "deliver_policy": "all"}
        request = json.dumps({"stream_name": STREAM, "config": config}).encode()
        connection.sendall(b"SUB %s.* 1\r\n" % _INBOX)
        subject = b"$JS.API.CONSUMER.CREATE.%s.limit" % STREAM.encode()
        connection.sendall(b"PUB %s %s.0 %d\r\n%s\r\n" % (subject, _INBOX, len(request), request))
        messages = _messages(connection)
        next(messages)
        started = time.monotonic()
        cpu = time.process_time()
        ask = b'{"batch":10000,"max_bytes":%d,"expires":30000000000}' % (16 << 20)
        got = 0
        while got < size:
            subject = b"$JS.API.CONSUMER.MSG.NEXT.%s.limit" % STREAM.encode()
            connection.sendall(b"PUB %s %s.1 %d\r\n%s\r\n" % (subject, _INBOX, len(ask), ask))
            for status, length in messages:
                if status:
                    break
                got += length + 1
                if got >= size:
                    break
        seconds = time.monotonic() - started
    return Figure(seconds, got, {"loop": time.process_time() - cpu}, True)


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\n')
    while not connection.recv(65536).endswith(b"\r\n"):
        pass
    return connection


def _messages(connection: socket.socket) -> Iterator[tuple[bool, int]]:
    """For each message whether it is a status without data, and its payload's length; payloads are read and dropped."""
    buffer = bytearray(1 << 20)
    view = memoryview(buffer)
    held = b""
    while True:
        end = held.find(b"\r\n")
        if end < 0:
            held += connection.recv(65536)
            continue
        line, held = held[:end], held[end + 2 :]
        if not line.startswith((b"MSG", b"HMSG")):
            continue
        fields = line.split()
        total = int(fields[-1])
        headers = int(fields[-2]) if fields[0] == b"HMSG" else 0
        left = total + 2 - len(held)
        status = headers == total > 0
        held = held[total + 2 :] if left <= 0 else b""
        while left > 0:
            left -= connection.recv_into(view[: min(left, len(buffer))])
        yield status, total - headers
