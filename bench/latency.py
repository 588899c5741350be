# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a line takes from its being written to a log to its being readable in the archive, in durable mode.

One process writes lines that say when they were written, another one (this) reads the archive's file as it grows. It
looks a thousand times a second or more, and says how long it was ever away: figures below that are not to be trusted.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import chart
import results
from harness import (
    SYNC,
    Program,
    archive_files,
    bundle,
    durable_server,
    durable_settings,
    kept,
    make_streams,
    wait_until,
)

MEDIAN_MOST, LATE_MOST = 10.0, 50.0
_LOOK = 0.0005
_GIVE_UP = 10.0
# What comes before: the file has to be found by the producer and made by the consumer.
_WARM_UP = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=int, default=1000, help="lines a second; %(default)s without")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to write; %(default)s without")
    parser.add_argument("--sync", default=SYNC, help="the broker's sync_interval, such as always; %(default)s without")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as folder:
        return measure(Path(folder), options.rate, options.seconds, options.sync)


def measure(folder: Path, rate: int, seconds: float, sync: str) -> int:
    source = folder / "app.log"
    source.touch()
    archive = folder / "archive"
    program = bundle(folder)
    total = int(rate * (_WARM_UP + seconds))
    with durable_server(folder, sync) as server:
        writing, reading = durable_settings(server, folder, source)
        make_streams(program, writing, "1GiB")
        with Program(program, "consumer", reading, folder / "consumer.log") as consumer:
            consumer.wait_for("Waiting for messages")
            with Program(program, "producer", writing, folder / "producer.log") as producer:
                producer.wait_for("Publishing")
                writer = multiprocessing.Process(target=write, args=(source, rate, total), daemon=True)
                writer.start()
                wait_until(lambda: bool(archive_files(archive)), 30)
                latencies, away = read(archive_files(archive)[0], total)
                writer.join()
    measured = sorted(latencies[int(rate * _WARM_UP) :])
    median = percentile(measured, 50)
    print("%d lines a second for %.0f s, from their being written to their being readable" % (rate, seconds))
    print("  arrived     %d of %d lines" % (len(latencies), total))
    print("  median      %.1f ms" % median)
    print("  99 %%        %.1f ms" % percentile(measured, 99))
    print("  maximum     %.1f ms" % measured[-1])
    print("  reader      away for %.1f ms at the median, %.1f ms at most" % (percentile(away, 50), away[-1]))
    late = percentile(measured, 99)
    good = median < MEDIAN_MOST and late < LATE_MOST
    print("  promised    a median below %.0f ms, 99 %% below %.0f ms: %s" % (MEDIAN_MOST, LATE_MOST, kept(good)))
    shown = (50, 90, 99, 99.9)
    document: dict[str, object] = {
        "lines_per_second": rate,
        "lines": len(measured),
        "arrived_all": len(latencies) == total,
    }
    document.update({"ms_at_%g_percent" % each: round(percentile(measured, each), 2) for each in shown})
    rows = [("%g %% of the lines within" % each, percentile(measured, each), "ours") for each in shown]
    rows.append(("promised for 50 %", MEDIAN_MOST, "limit"))
    rows.append(("promised for 99 %", LATE_MOST, "limit"))
    note = "ms from written to readable in the archive, logarithmic, %d lines a second" % rate
    results.save("latency", document, chart.bars("A line's way", note, "ms", rows))
    return 0 if good and len(latencies) == total else 1


def write(source: Path, rate: int, total: int) -> None:
    """Append the lines, each at its time, or as soon after as the machine lets us."""
    started = time.monotonic()
    fd = os.open(source, os.O_WRONLY | os.O_APPEND)
    for number in range(total):
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        os.write(
            fd,
            b"%d app: request %08d served, as many others were before it in this service\n" % (time.time_ns(), number),
        )
    os.close(fd)


def read(path: Path, total: int) -> tuple[list[float], list[float]]:
    """Each line's age when it was seen, in their order, and how long we did not look, ascending; both in ms."""
    latencies: list[float] = []
    away: list[float] = []
    rest = b""
    looked = last = time.monotonic()
    with contextlib.closing(open(path, "rb", buffering=0)) as file:
        while len(latencies) < total and looked - last < _GIVE_UP:
            time.sleep(_LOOK)
            data = file.read(1 << 20)
            now, before, looked = time.time_ns(), looked, time.monotonic()
            away.append((looked - before) * 1e3)
            if data:
                last = looked
                *lines, rest = (rest + data).split(b"\n")
                latencies += [(now - int(line.partition(b" ")[0])) / 1e6 for line in lines]
    return latencies, sorted(away)


def percentile(ascending: list[float], percent: float) -> float:
    return ascending[min(len(ascending) - 1, int(len(ascending) * percent / 100))]


if __name__ == "__main__":
    raise SystemExit(main())
