# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast one file goes through core NATS into the archive, and whether all of it arrives.

One producer, one nats-server, one consumer, as processes on this machine; 1.5 million lines, 160 MB. Beside it stands
the same file through a plain TCP connection into a file: what this machine's loopback and disk cache can do at all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from harness import (
    LINES,
    MEGABYTE,
    Program,
    archive_size,
    bundle,
    cpu_seconds,
    is_copied,
    tcp_copy_seconds,
    wait_for_archive,
    wait_until,
    write_lines,
)

from tests.support import NatsServer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=LINES, help="how many lines; %(default)s without")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as folder:
        return measure(Path(folder), options.lines)


def measure(folder: Path, count: int) -> int:
    source = folder / "app.log"
    write_lines(source, count)
    size = source.stat().st_size
    limit = size / tcp_copy_seconds(source, folder / "limit") / MEGABYTE
    (folder / "limit").unlink()
    archive = folder / "archive"
    archive.mkdir()
    program = bundle(folder)
    with NatsServer(folder / "nats") as server:
        common = {"NATS_URL": server.url, "SHIPPER_SUBJECT": "shipper"}
        reading = {**common, "SHIPPER_DIRECTORY": str(archive), "SHIPPER_OUTPUT": "app-%Y%m%d%H%M%S"}
        writing = {
            **common,
            "SHIPPER_FILE": str(source),
            "SHIPPER_STATE": str(folder / "state"),
            "HOSTNAME": "web1.example.net",
        }
        with Program(program, "consumer", reading, folder / "consumer.log") as consumer:
            consumer.wait_for("Waiting for messages")
            idle = cpu_seconds(consumer.pid), cpu_seconds(server.pid)
            started = time.monotonic()
            with Program(program, "producer", writing, folder / "producer.log") as producer:
                wait_until(lambda: archive_size(archive) > 0, 60)
                began = time.monotonic()
                finished, arrived = wait_for_archive(archive, size)
                seconds = finished - began
                spent = {
                    "producer": cpu_seconds(producer.pid),
                    "nats-server": cpu_seconds(server.pid) - idle[1],
                    "consumer": cpu_seconds(consumer.pid) - idle[0],
                }
        stopped = consumer.log.strip().splitlines()[-1]
    identical = is_copied(source, archive)
    rate = arrived / seconds / MEGABYTE
    print("%d lines, %.1f MB from one file over core NATS to the archive" % (count, size / MEGABYTE))
    print("  archive     %s" % ("byte-identical" if identical else "NOT identical: %d of %d bytes" % (arrived, size)))
    print("  rate        %.0f MB/s, in %.2f s from the archive's first bytes to its last" % (rate, seconds))
    print("  start       %.2f s from the producer's start to the archive's first bytes" % (began - started))
    print("  limit       %.0f MB/s, the same file through one TCP connection into a file" % limit)
    print("  ratio       %.2f of the limit" % (rate / limit))
    for name, used in spent.items():
        print("  CPU         %-11s %.2f s, %.1f s a GB" % (name, used, used / size * 1e9))
    print("  consumer    %s" % stopped)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
