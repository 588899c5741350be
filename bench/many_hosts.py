# SPDX-License-Identifier: GPL-3.0-or-later
"""What 20,000 hosts cost a consumer, in durable mode: how fast it starts, and how much memory it needs.

A block of lines of each host is archived; the consumer is stopped and started again; then each host sends one more
block. All hosts are in one partition, and so with one worker. Exits with 1 where a promise does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import chart
import results
from harness import (
    STREAM,
    SYNC,
    Program,
    archive_files,
    ask,
    bundle,
    cpu_seconds,
    durable_server,
    durable_settings,
    kept,
    lines,
    make_streams,
    resident_megabytes,
    wait_for_commit,
)

from shipper_runtime.jetstream import JetStream
from shipper_runtime.partition import host_subject
from shipper_runtime.wire import Span, encode
from tests.support import NatsServer

SECONDS_MOST = 5.0
MEGABYTES_MOST = 150.0
LINES_A_BLOCK = 5
# How many are on the way at a time.
_PUBLISHERS = 200
_COMMIT_SECONDS = 1800.0


@dataclass(frozen=True)
class Block:
    """A host's lines, each time the next ones of one file's life."""

    host: str
    life: str
    content: bytes

    def message(self, number: int) -> tuple[bytes, dict[str, str]]:
        """Payload and headers of the block that is sent as the how manieth, from 0 on."""
        size = len(self.content)
        head = hashlib.blake2b(self.content[:1024], digest_size=16).hexdigest()
        begin = number * size
        span = Span(b"/var/log/app.log", self.life, begin, begin + size, min(size, 1024), head)
        return self.content[:-1], encode(self.host, span)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=20_000, help="how many; %(default)s without")
    parser.add_argument("--sync", default=SYNC, help="the broker's sync_interval, such as always; %(default)s without")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as folder:
        return measure(Path(folder), options.hosts, options.sync)


def measure(folder: Path, count: int, sync: str) -> int:
    content = b"".join(lines(LINES_A_BLOCK))
    blocks = [Block("h%05d.example.net" % number, secrets.token_hex(16), content) for number in range(count)]
    program = bundle(folder)
    with durable_server(folder, sync) as server:
        _writing, reading = durable_settings(server, folder, folder)
        make_streams(program, reading, "4GiB")
        print(
            "%d hosts, a block of %d lines, %d bytes, of each at a time" % (count, LINES_A_BLOCK, len(content)),
            flush=True,
        )
        with Program(program, "consumer", reading, folder / "first.log") as consumer:
            consumer.wait_for("Waiting for messages")
            took, used = archive(server, blocks, 0, consumer)
            print("  first       %.1f s to publish and archive a block each, CPU %.1f s" % (took, used))
            print("              %.1f MB resident then" % resident_megabytes(consumer.pid), flush=True)
            stopping = time.monotonic()
        print("  stop        %.2f s" % (time.monotonic() - stopping))
        started = time.monotonic()
        with Program(program, "consumer", reading, folder / "second.log") as consumer:
            consumer.wait_for("Waiting for messages", 120)
            seconds = time.monotonic() - started
            at_start = resident_megabytes(consumer.pid)
            time.sleep(5)
            later = resident_megabytes(consumer.pid)
            print("  start       %.2f s until it waits for messages" % seconds)
            print("              %.1f MB resident then, %.1f MB 5 s later" % (at_start, later), flush=True)
            took, used = archive(server, blocks, 1, consumer)
            afterwards = resident_megabytes(consumer.pid)
            print("  second      %.1f s to publish and archive one more block each, CPU %.1f s" % (took, used))
            print("              %.1f MB resident then" % afterwards)
    whole = {path.stat().st_size for path in archive_files(folder / "archive")} == {2 * len(content)}
    most = max(at_start, later, afterwards)
    print("  archive     %s" % ("has two blocks of each host" if whole else "does NOT have two blocks of each host"))
    print("  promised    a start below %.0f s: %s" % (SECONDS_MOST, kept(seconds < SECONDS_MOST)))
    print("              at most %.0f MB: %s" % (MEGABYTES_MOST, kept(most <= MEGABYTES_MOST)))
    document = {
        "hosts": count,
        "start_seconds": round(seconds, 2),
        "megabytes_at_start": round(at_start, 1),
        "megabytes_at_most": round(most, 1),
        "whole": whole,
    }
    rows = [
        ("start, promised at most (s)", SECONDS_MOST, "limit"),
        ("start (s)", seconds, "ours"),
        ("memory, promised at most (MB)", MEGABYTES_MOST, "limit"),
        ("memory (MB)", most, "ours"),
    ]
    picture = chart.bars("A consumer of %d hosts starts" % count, "logarithmic", "", rows)
    results.save("many-hosts", document, picture)
    return 0 if whole and seconds < SECONDS_MOST and most <= MEGABYTES_MOST else 1


def archive(server: NatsServer, blocks: list[Block], number: int, consumer: Program) -> tuple[float, float]:
    """Publish a block of each host; how long until all are committed, and the consumer's CPU, in seconds."""
    before, started = cpu_seconds(consumer.pid), time.monotonic()
    ask(server, lambda js: publish(js, blocks, number))
    return wait_for_commit(server, _COMMIT_SECONDS) - started, cpu_seconds(consumer.pid) - before


async def publish(js: JetStream, blocks: list[Block], number: int) -> None:
    left = iter(blocks)

    async def publisher() -> None:
        for block in left:
            payload, headers = block.message(number)
            await js.publish(host_subject("shipper", 0, block.host), payload, headers, STREAM, 30.0)

    await asyncio.gather(*(publisher() for _turn in itertools.repeat(None, _PUBLISHERS)))


if __name__ == "__main__":
    raise SystemExit(main())
