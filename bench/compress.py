# SPDX-License-Identifier: GPL-3.0-or-later
"""What SHIPPER_COMPRESS costs and what it saves: the same lines without it, with gzip, and with a higher level.

A producer fills a stream that nobody reads, then a consumer empties it, as in peers.py: 1.5 million lines, 160 MB. What
is sent and stored is what the stream holds, headers included. Also compressed on one side only: blocks that are
unpacked for an archive as it is, and plain ones that the consumer compresses.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import chart
import results
from harness import (
    LINES,
    MEGABYTE,
    STREAM,
    Program,
    archive_files,
    archive_size,
    ask,
    bundle,
    cpu_seconds,
    durable_server,
    durable_settings,
    make_streams,
    wait_for_commit,
    wait_for_stream,
    write_lines,
)

# What the producer compresses, and the consumer.
WAYS = {
    "none": ("none", "none"),
    "gzip": ("gzip", "gzip"),
    "level 6": ("6", "6"),
    "producer only": ("gzip", "none"),
    "consumer only": ("none", "gzip"),
}


@dataclass
class Cost:
    """Of a GB of log lines: CPU seconds, and what of it is stored, as shares. rate is in MB/s of log lines into the
    stream."""

    producer: float
    consumer: float
    stream: float
    archive: float
    rate: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=LINES, help="how many lines; %(default)s without")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; %(default)s without")
    options = parser.parse_args()
    found: dict[str, list[Cost]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as name:
        folder = Path(name)
        source = folder / "app.log"
        write_lines(source, options.lines)
        program = bundle(folder)
        print("%d lines, %.0f MB; medians of %d" % (options.lines, source.stat().st_size / MEGABYTE, options.rounds))
        for number in range(options.rounds):
            for way in WAYS:
                found[way].append(measure(folder / ("%s-%d" % (way, number)), program, source, WAYS[way]))
    costs = {
        way: Cost(*(statistics.median(of) for of in zip(*(vars(each).values() for each in found[way])))) for way in WAYS
    }
    for way, cost in costs.items():
        print(
            "  %-14s stream %.2f, archive %.2f of the lines; CPU s/GB: producer %.1f, consumer %.1f; "
            "into the stream %.0f MB/s" % (way, cost.stream, cost.archive, cost.producer, cost.consumer, cost.rate)
        )
    document = {
        way: {
            "stream_bytes_per_byte": round(cost.stream, 3),
            "archive_bytes_per_byte": round(cost.archive, 3),
            "producer_cpu_seconds_per_gigabyte": round(cost.producer, 2),
            "consumer_cpu_seconds_per_gigabyte": round(cost.consumer, 2),
            "megabytes_per_second_into_the_stream": round(cost.rate),
        }
        for way, cost in costs.items()
    }
    rows = [
        row
        for way, cost in costs.items()
        for row in (
            ("%s: producer" % way, cost.producer, "ours"),
            ("%s: consumer" % way, cost.consumer, "ours"),
        )
    ]
    note = "CPU s a GB of log lines, logarithmic, medians of %d; gzip sends and stores %.2f of it" % (
        options.rounds,
        costs["gzip"].stream,
    )
    results.save("compress", document, chart.bars("What compressing costs", note, "s", rows))
    return 0


def measure(folder: Path, program: list[str], source: Path, way: tuple[str, str]) -> Cost:
    folder.mkdir()
    size = source.stat().st_size
    archive = folder / "archive"
    with durable_server(folder) as server:
        writing, reading = durable_settings(server, folder, source)
        make_streams(program, writing, "4GiB")
        writing["SHIPPER_COMPRESS"], reading["SHIPPER_COMPRESS"] = way
        with Program(program, "producer", writing, folder / "producer.log") as producer:
            first, last = wait_for_stream(server, size)
            sending = cpu_seconds(producer.pid)
        stored = int(ask(server, lambda js: js.stream_info(STREAM))["state"]["bytes"])
        with Program(program, "consumer", reading, folder / "consumer.log") as consumer:
            consumer.wait_for("Waiting for messages")
            before = cpu_seconds(consumer.pid)
            wait_for_commit(server)
            storing = cpu_seconds(consumer.pid) - before
    (file,) = archive_files(archive)
    content = file.read_bytes()
    if (gzip.decompress(content) if file.suffix == ".gz" else content) != source.read_bytes():
        raise SystemExit("%s is not the same" % file)
    gigabytes = size / 1e9
    return Cost(
        producer=sending / gigabytes,
        consumer=storing / gigabytes,
        stream=stored / size,
        archive=archive_size(archive) / size,
        rate=size / (last - first) / MEGABYTE,
    )


if __name__ == "__main__":
    raise SystemExit(main())
