# SPDX-License-Identifier: GPL-3.0-or-later
"""What a broker's address may lead to: somebody else who listens there."""

from __future__ import annotations

import asyncio

import pytest

from shipper_runtime.broker import Broker
from shipper_runtime.settings import broker_settings

SAID = [
    b"INFO []\r\n",
    b"INFO null\r\n",
    b'INFO {"max_payload": "x", "version": "2.10.0"}\r\n',
    b'INFO {"max_payload": 1048576, "version": 2}\r\n',
    b"-ERR \xff\r\n",
    b"x" * 200_000,
]


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
        broker = Broker(broker_settings({"NATS_URL": "127.0.0.1:%d" % port}), "test", "_INBOX.test")
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
            server.close()
        return broker.failure

    assert asyncio.run(scenario()).startswith("cannot connect to NATS at nats://127.0.0.1:")
