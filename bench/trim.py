# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a healthy archive ever lets its stream fill up: a small stream, and many times as much sent through it.

The stream may hold 64 MB. The producer sends as fast as it goes; where the stream is full, it waits and says so, when
that lasts for more than 2 seconds. How much the stream held is looked at all the while: a producer that is faster than
the archive is held back by a stream that has no room for another block, for moments.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
import threading
import time
from pathlib import Path

import chart
import results
from harness import (
    BLOCK,
    MEGABYTE,
    STREAM,
    SYNC,
    Program,
    archive_size,
    ask,
    bundle,
    durable_server,
    durable_settings,
    is_copied,
    kept,
    make_streams,
    wait_for_archive,
    wait_until,
    write_lines,
)

from shipper_runtime.jetstream import JetStream
from tests.support import NatsServer

STREAM_MEGABYTES = 64
_LINES_A_MEGABYTE = 9290
_FULL = re.compile(r".*\bfull\b.*")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000, help="how much to send; %(default)s without")
    parser.add_argument("--sync", default=SYNC, help="the broker's sync_interval, such as always; %(default)s without")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as folder:
        return measure(Path(folder), options.megabytes, options.sync)


def measure(folder: Path, megabytes: int, sync: str) -> int:
    source = folder / "app.log"
    write_lines(source, megabytes * _LINES_A_MEGABYTE)
    size = source.stat().st_size
    archive = folder / "archive"
    program = bundle(folder)
    with durable_server(folder, sync) as server:
        writing, reading = durable_settings(server, folder, source)
        make_streams(program, writing, "%dMB" % STREAM_MEGABYTES)
        watch = Watch(server)
        with Program(program, "consumer", reading, folder / "consumer.log") as consumer:
            consumer.wait_for("Waiting for messages")
            watch.start()
            with Program(program, "producer", writing, folder / "producer.log") as producer:
                wait_until(lambda: archive_size(archive) > 0, 60)
                began = time.monotonic()
                finished, arrived = wait_for_archive(archive, size)
            watch.stop()
        said = _FULL.findall(producer.log)
    identical = is_copied(source, archive)
    print("%.0f MB through a stream that may hold %d MB" % (size / MEGABYTE, STREAM_MEGABYTES))
    print("  archive     %s" % ("byte-identical" if identical else "NOT identical: %d of %d bytes" % (arrived, size)))
    print("  rate        %.0f MB/s" % (arrived / (finished - began) / MEGABYTE))
    looks = (watch.most / MEGABYTE, watch.held_back, watch.looks)
    print("  stream      held %.1f MB at most; no room for another block at %d of %d looks" % looks)
    print(
        "  producer    %s" % ("said it %d times: %s" % (len(said), said[0]) if said else "never said that it is full")
    )
    print("  promised    a healthy archive never lets a stream fill up: %s" % kept(not said))
    document = {
        "stream_megabytes": STREAM_MEGABYTES,
        "megabytes_sent": round(size / MEGABYTE),
        "identical": identical,
        "megabytes_held_at_most": round(watch.most / MEGABYTE, 1),
        "looks": watch.looks,
        "looks_without_room_for_a_block": watch.held_back,
        "said_full": len(said),
    }
    rows = [
        ("sent through the stream", size / MEGABYTE, "peer"),
        ("the stream may hold", float(STREAM_MEGABYTES), "limit"),
        ("it held at most", watch.most / MEGABYTE, "ours"),
    ]
    results.save("trim", document, chart.bars("A small stream, trimmed as it is read", "MB, logarithmic", "MB", rows))
    return 0 if identical and not said else 1


class Watch:
    """Looks at the stream: most is the most bytes that it ever held, in so many looks, and at held_back of them there
    was no room for another block."""

    def __init__(self, server: NatsServer) -> None:
        self.most = 0
        self.looks = 0
        self.held_back = 0
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        async def look(js: JetStream) -> None:
            while not self._over.is_set():
                stored = int((await js.stream_info(STREAM))["state"]["bytes"])
                self.most = max(self.most, stored)
                self.looks += 1
                self.held_back += STREAM_MEGABYTES * MEGABYTE - stored < BLOCK
                await asyncio.sleep(0.02)

        ask(self._server, look)


if __name__ == "__main__":
    raise SystemExit(main())
