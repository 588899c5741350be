# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast one file goes into a stream, and through it into the archive, in durable mode.

One producer, one nats-server with JetStream, one consumer, as processes on this machine; 1.5 million lines, 160 MB.
First the stream alone, which nobody reads; then, from the beginning, all of the way. Beside it stands the same file
through a plain TCP connection into a file: what this machine's loopback and disk cache can do at all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from harness import (
    LINES,
    MEGABYTE,
    SYNC,
    Program,
    archive_size,
    bundle,
    cpu_seconds,
    durable_server,
    durable_settings,
    is_copied,
    kept,
    make_streams,
    tcp_copy_seconds,
    wait_for_archive,
    wait_for_commit,
    wait_for_stream,
    wait_until,
    write_lines,
)

STREAM_LEAST = 200.0
ARCHIVE_LEAST = 80.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=LINES, help="how many lines; %(default)s without")
    parser.add_argument("--sync", default=SYNC, help="the broker's sync_interval, such as always; %(default)s without")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as name:
        folder = Path(name)
        source = folder / "app.log"
        write_lines(source, options.lines)
        size = source.stat().st_size
        limit = size / tcp_copy_seconds(source, folder / "limit") / MEGABYTE
        (folder / "limit").unlink()
        program = bundle(folder)
        print("%d lines, %.1f MB from one file in durable mode" % (options.lines, size / MEGABYTE))
        print("  limit       %.0f MB/s, the same file through one TCP connection into a file" % limit)
        stream = into_the_stream(folder / "stream", program, source, limit, options.sync)
        archive = into_the_archive(folder / "whole", program, source, limit, options.sync)
        return 0 if stream and archive else 1


def into_the_stream(folder: Path, program: list[str], source: Path, limit: float, sync: str) -> bool:
    """No consumer runs; whether it is as fast as promised."""
    size = source.stat().st_size
    with durable_server(folder, sync) as server:
        writing, _reading = durable_settings(server, folder, source)
        make_streams(program, writing, "4GiB")
        idle = cpu_seconds(server.pid)
        with Program(program, "producer", writing, folder / "producer.log") as producer:
            first, last = wait_for_stream(server, size)
            spent = {"producer": cpu_seconds(producer.pid), "nats-server": cpu_seconds(server.pid) - idle}
    rate = size / (last - first) / MEGABYTE
    print("into the stream alone, acknowledged")
    print("  rate        %.0f MB/s, in %.2f s from its first message to its last" % (rate, last - first))
    print("  ratio       %.2f of the limit" % (rate / limit))
    print_cpu(spent, size)
    print("  promised    %.0f MB/s or more: %s" % (STREAM_LEAST, kept(rate >= STREAM_LEAST)))
    return rate >= STREAM_LEAST


def into_the_archive(folder: Path, program: list[str], source: Path, limit: float, sync: str) -> bool:
    """All of the way; whether it is as fast as promised, and identical."""
    size = source.stat().st_size
    archive = folder / "archive"
    with durable_server(folder, sync) as server:
        writing, reading = durable_settings(server, folder, source)
        make_streams(program, writing, "4GiB")
        with Program(program, "consumer", reading, folder / "consumer.log") as consumer:
            consumer.wait_for("Waiting for messages")
            idle = cpu_seconds(consumer.pid), cpu_seconds(server.pid)
            started = time.monotonic()
            with Program(program, "producer", writing, folder / "producer.log") as producer:
                wait_until(lambda: archive_size(archive) > 0, 60)
                began = time.monotonic()
                finished, arrived = wait_for_archive(archive, size)
                spent = {
                    "producer": cpu_seconds(producer.pid),
                    "nats-server": cpu_seconds(server.pid) - idle[1],
                    "consumer": cpu_seconds(consumer.pid) - idle[0],
                }
                committed = wait_for_commit(server)
        stopped = consumer.log.strip().splitlines()[-1]
    identical = is_copied(source, archive)
    rate = arrived / (finished - began) / MEGABYTE
    print("through the stream into the archive")
    print("  archive     %s" % ("byte-identical" if identical else "NOT identical: %d of %d bytes" % (arrived, size)))
    print("  rate        %.0f MB/s, in %.2f s from the archive's first bytes to its last" % (rate, finished - began))
    print("  committed   %.2f s after the last byte" % (committed - finished))
    print("  start       %.2f s from the producer's start to the archive's first bytes" % (began - started))
    print("  ratio       %.2f of the limit" % (rate / limit))
    print_cpu(spent, size)
    print("  consumer    %s" % stopped)
    print("  promised    %.0f MB/s or more: %s" % (ARCHIVE_LEAST, kept(rate >= ARCHIVE_LEAST)))
    return identical and rate >= ARCHIVE_LEAST


def print_cpu(spent: dict[str, float], size: int) -> None:
    for name, used in spent.items():
        print("  CPU         %-11s %.2f s, %.1f s a GB" % (name, used, used / size * 1e9))


if __name__ == "__main__":
    raise SystemExit(main())
