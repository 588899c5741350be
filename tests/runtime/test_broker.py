# SPDX-License-Identifier: GPL-3.0-or-later
"""What a broker's address may lead to: somebody else who listens there."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import pytest

from shipper_runtime.broker import Broker
from shipper_runtime.settings import broker_settings
from tests.support import NatsServer

SAID = [
    b"INFO []\r\n",
    b"INFO null\r\n",
    b'INFO {"max_payload": "x", "version": "2.10.0"}\r\n',
    b'INFO {"max_payload": 1048576, "version": 2}\r\n',
    b"-ERR \xff\r\n",
    b"x" * 200_000,
]


async def failure_of(settings: dict[str, str]) -> str:
    """Why there is no connection, of a service that goes on trying."""
    broker = Broker(broker_settings(settings), "test", "_INBOX.test")
    running = asyncio.ensure_future(broker.run())
    try:
        for _turn in range(200):
            await asyncio.sleep(0.05)
            if broker.failure or running.done():
                break
        assert not running.done(), running.exception()
    finally:
        running.cancel()
        await asyncio.wait({running})
    return broker.failure


@pytest.mark.parametrize("said", SAID, ids=range(len(SAID)))
def test_who_does_not_speak_nats_is_waited_for_like_one_who_does_not_answer(said: bytes) -> None:
    """A service must not end of it: another server may be right, or this one be later."""

    async def scenario() -> str:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(said)
            try:
                while line := await reader.readline():
                    if line.startswith(b"PING"):
                        writer.write(b"PONG\r\n")
            except ConnectionError:
                pass
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await failure_of({"NATS_URL": "127.0.0.1:%d" % port})
        finally:
            server.close()

    assert asyncio.run(scenario()).startswith("cannot connect to NATS at nats://127.0.0.1:")


def test_who_drops_whom_it_has_just_accepted_is_not_asked_again_and_again() -> None:
    """It waits longer each time, as for one who does not answer."""

    async def scenario() -> list[float]:
        accepted: list[float] = []

        async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"max_payload": 1048576, "version": "2.10.0", "headers": true}\r\n')
            while not (await reader.readline()).startswith(b"PING"):
                pass
            accepted.append(time.monotonic())
            writer.write(b"PONG\r\n")
            writer.close()

        server = await asyncio.start_server(drop, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        running = asyncio.ensure_future(Broker(broker_settings({"NATS_URL": "127.0.0.1:%d" % port}), "x", "x").run())
        try:
            while len(accepted) < 4:
                await asyncio.sleep(0.05)
        finally:
            running.cancel()
            await asyncio.wait({running})
            server.close()
        return accepted

    accepted = asyncio.run(asyncio.wait_for(scenario(), 20))
    # A quarter, a half and a whole second at least.
    assert accepted[3] - accepted[0] > 1.75


def test_a_file_that_cannot_be_read_at_the_moment_is_named_and_waited_for(tmp_path: Path) -> None:
    """As while certificates are replaced: the next try may find them whole."""
    missing = str(tmp_path / "ca.pem")
    failure = asyncio.run(failure_of({"NATS_URL": "tls://127.0.0.1:1", "NATS_CA": missing}))
    assert "NATS_CA=" + missing in failure


def test_a_certificate_that_is_refused_is_told(tmp_path: Path) -> None:
    """It is a ValueError to Python, as is much that only shows that a stranger listens."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=other", "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    files = 'cert_file: "%s", key_file: "%s"' % (tmp_path / "cert.pem", tmp_path / "key.pem")
    with NatsServer(tmp_path / "nats", "tls { %s }" % files) as server:
        failure = asyncio.run(failure_of({"NATS_URL": "tls://127.0.0.1:%d" % server.port}))
    assert "certificate" in failure.lower()
    assert "not NATS" not in failure


def test_what_a_stranger_says_cannot_write_to_a_terminal() -> None:
    async def scenario() -> str:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"INFO {}\r\n")
            await reader.readline()
            writer.write(b"-ERR '\x1b[2Jgo away'\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        try:
            return await failure_of({"NATS_URL": "127.0.0.1:%d" % server.sockets[0].getsockname()[1]})
        finally:
            server.close()

    failure = asyncio.run(scenario())
    assert "go away" in failure and failure.isprintable()


def test_a_name_that_is_none_is_told() -> None:
    assert "not NATS" not in asyncio.run(failure_of({"NATS_URL": "a..b:4222"}))
