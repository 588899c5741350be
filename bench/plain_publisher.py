# SPDX-License-Identifier: GPL-3.0-or-later
"""What our consumer does with a plain publisher's messages: one line each, without headers, as fshipper sends them.

Core NATS holds nobody back, so a publisher that is faster than its reader makes the server or the client drop; what
arrived, what the consumer counted as dropped and what the server cut off are printed beside each other. Give a rate to
find the one that loses nothing.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import time
from itertools import islice
from pathlib import Path

from harness import LINES, MEGABYTE, Program, bundle, cpu_seconds, lines, wait_for_archive

from tests.support import NatsServer

SUBJECT = b"shipper.p0.web1.example.net"
AT_ONCE = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=LINES, help="how many lines; %(default)s without")
    parser.add_argument("--rate", type=int, default=0, help="lines a second; as fast as it goes without")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as folder:
        return measure(Path(folder), options.lines, options.rate)


def measure(folder: Path, count: int, rate: int) -> int:
    archive = folder / "archive"
    archive.mkdir()
    program = bundle(folder)
    with NatsServer(folder / "nats") as server:
        settings = {
            "NATS_URL": server.url,
            "SHIPPER_SUBJECT": "shipper",
            "SHIPPER_DIRECTORY": str(archive),
            "SHIPPER_OUTPUT": "app-%Y%m%d%H%M%S",
        }
        with Program(program, "consumer", settings, folder / "consumer.log") as consumer:
            consumer.wait_for("Waiting for messages")
            before = cpu_seconds(consumer.pid)
            started = time.monotonic()
            published = publish(server.port, count, rate)
            publishing = time.monotonic() - started
            finished, arrived = wait_for_archive(archive, published)
            used = cpu_seconds(consumer.pid) - before
        log = consumer.log
    megabytes = arrived / (finished - started) / MEGABYTE
    kept = sum(path.read_bytes().count(b"\n") for path in archive.rglob("*") if path.is_file())
    print("%d lines, %.1f MB, one message each, without headers" % (count, published / MEGABYTE))
    print("  published   in %.2f s, %.0f lines a second" % (publishing, count / publishing))
    print("  archived    %d lines, %.1f %%, %.1f MB/s" % (kept, 100 * kept / count, megabytes))
    print("  CPU         consumer %.2f s, %.1f s a GB archived" % (used, used / max(arrived, 1) * 1e9))
    print("  cut off     %d times by the server, as a slow consumer" % log.count("Disconnected from"))
    print("  consumer    %s" % log.strip().splitlines()[-1])
    return 0


def publish(port: int, count: int, rate: int) -> int:
    """Publish the lines over a plain socket; the number of bytes that their file would have."""
    total = 0
    source = lines(count)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
        started = time.monotonic()
        sent = 0
        while True:
            some = list(islice(source, AT_ONCE))
            if not some:
                break
            connection.sendall(b"".join(b"PUB %s %d\r\n%s\r\n" % (SUBJECT, len(line) - 1, line[:-1]) for line in some))
            total += sum(map(len, some))
            sent += len(some)
            if rate:
                time.sleep(max(0.0, started + sent / rate - time.monotonic()))
        connection.sendall(b"PING\r\n")
        answer = b""
        while b"PONG" not in answer:
            answer = answer[-8:] + connection.recv(65536)
    return total


if __name__ == "__main__":
    raise SystemExit(main())
