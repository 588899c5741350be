# SPDX-License-Identifier: GPL-3.0-or-later
"""One message a line, as fshipper does it, with the plain client nats-py: over core NATS, and through a stream with an
acknowledgement awaited for each line. What is printed by `publish` and `write` runs as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from harness import SUBJECT, Figure, cpu_seconds, is_copied, wait_for_archive, wait_until

from tests.support import NatsServer


async def publish(url: str, source: str, acknowledged: bool) -> None:
    """A line after the other."""
    import nats

    client = await nats.connect(url)
    js = client.jetstream()
    with open(source, "rb") as file:
        for line in file:
            if acknowledged:
                await js.publish(SUBJECT, line[:-1])
            else:
                await client.publish(SUBJECT, line[:-1])
    await client.flush(60)
    await asyncio.sleep(3600)


async def write(url: str, target: str, durable: bool) -> None:
    """A line for each message, written as it comes."""
    import nats

    client = await nats.connect(url)
    with open(target, "ab") as file:

        async def take(msg: object) -> None:
            file.write(msg.data + b"\n")  # type: ignore[attr-defined]
            if durable:
                await msg.ack()  # type: ignore[attr-defined]

        if durable:
            await client.jetstream().subscribe(SUBJECT, durable="lines", cb=take, manual_ack=True)
        else:
            await client.subscribe(SUBJECT, cb=take)
        await client.flush()
        print("ready", flush=True)
        while True:
            await asyncio.sleep(0.05)
            file.flush()


def ship(server: NatsServer, folder: Path, source: Path, acknowledged: bool) -> Figure:
    """The file, line by line, into one file."""
    target = folder / "archive" / "web1" / "app.log"
    target.parent.mkdir(parents=True)
    size = source.stat().st_size
    word = "acknowledged" if acknowledged else "core"
    with _running("write", server.url, str(target), word) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with _running("publish", server.url, str(source), word) as publisher:
            wait_until(lambda: target.stat().st_size > 0, 60)
            began = time.monotonic()
            finished, arrived = wait_for_archive(folder / "archive", size)
            cpu = {"publisher": cpu_seconds(publisher.pid), "writer": cpu_seconds(writer.pid)}
    return Figure(finished - began, arrived, cpu, is_copied(source, folder / "archive"))


@contextlib.contextmanager
def _running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    _program, command, address, path, mode = sys.argv
    asyncio.run({"publish": publish, "write": write}[command](address, path, mode == "acknowledged"))
