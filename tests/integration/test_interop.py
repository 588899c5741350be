# SPDX-License-Identifier: GPL-3.0-or-later
"""Ours beside fshipper's programs and nats-server's own partitions, with plain NATS clients that do what those do."""

from __future__ import annotations

import asyncio
import random
import string
from pathlib import Path

import nats
from nats.aio.msg import Msg

from shipper_runtime.partition import partition
from tests.support import NatsServer, Shipper, archived, wait_for

LINES = [b"one", b"", b"caf\xc3\xa9", b"\xff\x00\xfe", b"cr\r", b" spaces ", b"x" * 5000]


def test_the_servers_own_mapping_agrees_on_a_thousand_names(tmp_path: Path) -> None:
    chooser = random.Random(20)
    label = string.ascii_letters + string.digits + "-_"
    hosts = {
        ".".join("".join(chooser.choices(label, k=chooser.randint(1, 20))) for _turn in range(chooser.randint(1, 5)))
        for _turn in range(1000)
    }
    assert len(hosts) > 990
    # Without positions of wildcards the server hashes the whole subject, which here is the host's whole name.
    config = 'mappings = { ">": "mapped.{{partition(10)}}.>" }'

    async def mapped(url: str) -> dict[str, int]:
        found: dict[str, int] = {}
        client = await nats.connect(url)
        done = asyncio.Event()

        async def on_message(msg: Msg) -> None:
            _nothing, number, host = msg.subject.split(".", 2)
            found[host] = int(number)
            if len(found) == len(hosts):
                done.set()

        await client.subscribe("mapped.>", cb=on_message)
        for host in hosts:
            await client.publish(host, b"")
        await asyncio.wait_for(done.wait(), 20)
        await client.close()
        return found

    with NatsServer(tmp_path, config) as server:
        assert asyncio.run(mapped(server.url)) == {host: partition(host, 10) for host in hosts}


def test_fshippers_producer_feeds_our_consumer(tmp_path: Path) -> None:
    env = {
        "SHIPPER_SUBJECT": "shipper",
        "SHIPPER_READ_PARTITIONS": "4",
        "SHIPPER_DIRECTORY": str(tmp_path / "archive"),
        "SHIPPER_OUTPUT": "logfile",
    }

    async def publish(url: str) -> None:
        client = await nats.connect(url)
        for line in LINES:
            await client.publish("shipper.p4.web1.example.net", line)
        await client.flush()
        await client.close()

    with NatsServer(tmp_path / "nats") as server:
        env["NATS_URL"] = server.url
        with Shipper("consumer", env, tmp_path / "log") as consumer:
            consumer.wait_for_log("Waiting for messages on subject shipper.p4.> @ " + server.url)
            asyncio.run(publish(server.url))
            expected = b"".join(line + b"\n" for line in LINES)
            wait_for(lambda: archived(tmp_path / "archive", "web1.example.net") == expected)
            assert 'Creating new log "%s/archive/web1.example.net/logfile-20' % tmp_path in consumer.log
            assert consumer.stop() == 0


def test_our_producer_feeds_fshippers_consumer(tmp_path: Path) -> None:
    source = tmp_path / "messages"
    source.write_bytes(b"".join(line + b"\n" for line in LINES) * 500)
    received = bytearray()

    async def consume(url: str) -> None:
        client = await nats.connect(url)

        async def on_message(msg: Msg) -> None:
            received.extend(msg.data + b"\n")  # fmt.Fprintln(logr, string(m.Data))

        await client.subscribe("shipper.p5.>", cb=on_message)
        await client.flush()
        env = {
            "NATS_URL": url,
            "HOSTNAME": "web1.example.net",
            "SHIPPER_SUBJECT": "shipper",
            "SHIPPER_PARTITIONS": "10",
            "SHIPPER_FILE": str(source),
            "SHIPPER_STATE": str(tmp_path / "state"),
        }
        with Shipper("producer", env, tmp_path / "log") as producer:
            for _turn in range(500):
                if len(received) >= source.stat().st_size:
                    break
                await asyncio.sleep(0.02)
            assert "Publishing %s to shipper.p5.web1.example.net" % source in producer.log
            stopped = asyncio.get_running_loop().run_in_executor(None, producer.stop)
            assert await stopped == 0
        await client.close()

    with NatsServer(tmp_path / "nats") as server:
        asyncio.run(consume(server.url))
    assert bytes(received) == source.read_bytes()
