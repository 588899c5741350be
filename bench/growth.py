# SPDX-License-Identifier: GPL-3.0-or-later
"""How time and memory grow with lines, files, hosts and partitions: charts, and the exponent of each curve.

An exponent of 1 is in proportion, 0 is flat. Each series runs from small to large with the real programs; fixed costs,
such as a start, bend a curve at its beginning.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import chart
import quiet_fleet
import results
from harness import (
    Program,
    archive_size,
    bundle,
    cpu_seconds,
    durable_server,
    durable_settings,
    make_streams,
    resident_megabytes,
    wait_for_commit,
    wait_until,
    write_lines,
)

LINES = (100_000, 300_000, 1_000_000, 3_000_000)
FILES = (10, 100, 1_000, 2_000)
HOSTS = (1_000, 5_000, 20_000, 50_000)
PARTITIONS = (1, 4, 16, 64)
_IDLE_SECONDS = 10.0
_MESSAGES = 50_000

Point = dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["lines", "files", "hosts", "partitions"], help="one series; all without")
    options = parser.parse_args()
    series = {"lines": (LINES, by_lines), "files": (FILES, by_files), "hosts": (HOSTS, by_hosts),
              "partitions": (PARTITIONS, by_partitions)}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as name:
        folder = Path(name)
        program = bundle(folder)
        for title, (counts, measure) in series.items():
            if options.only in (None, title):
                points = []
                for count in counts:
                    place = folder / "run"
                    place.mkdir()
                    points.append({title: count, **measure(place, program, count)})
                    print("  %s" % ", ".join("%s %.4g" % item for item in points[-1].items()), flush=True)
                    shutil.rmtree(place)
                exponents, picture = draw(title, points)
                results.save("growth-" + title, {"points": points, "exponents": exponents}, picture)
                print("%s: %s" % (title, ", ".join("%s ^%.2f" % item for item in exponents.items())))
    return 0


def by_lines(folder: Path, program: list[str], count: int) -> Point:
    """One file of so many lines, all of the way."""
    source = folder / "app.log"
    write_lines(source, count)
    with durable_server(folder) as server:
        writing, reading = durable_settings(server, folder, source)
        make_streams(program, writing, "4GiB")
        with Program(program, "consumer", reading, folder / "consumer.log") as consumer:
            consumer.wait_for("Waiting for messages")
            started = time.monotonic()
            with Program(program, "producer", writing, folder / "producer.log") as producer:
                wait_until(lambda: archive_size(folder / "archive") >= source.stat().st_size, 300)
                wait_for_commit(server)
                return {
                    "seconds": time.monotonic() - started,
                    "producer MB": resident_megabytes(producer.pid),
                    "consumer MB": resident_megabytes(consumer.pid),
                }


def by_files(folder: Path, program: list[str], count: int) -> Point:
    """So many files with a backlog of 100 kB each, and then idle."""
    logs = folder / "logs"
    logs.mkdir()
    for number in range(count):
        write_lines(logs / ("app%d.log" % number), 1000)
    size = sum(path.stat().st_size for path in logs.iterdir())
    with durable_server(folder) as server:
        writing, _reading = durable_settings(server, folder, logs)
        writing["SHIPPER_FILE"] = "%s/*.log" % logs
        make_streams(program, writing, "4GiB")
        started = time.monotonic()
        with Program(program, "producer", writing, folder / "producer.log") as producer:
            peak = 0.0

            def shipped() -> bool:
                nonlocal peak
                peak = max(peak, resident_megabytes(producer.pid))
                positions = folder / "state" / "positions.json"
                return positions.exists() and acknowledged(positions) >= size

            wait_until(shipped, 600)
            seconds = time.monotonic() - started
            time.sleep(5)
            before = cpu_seconds(producer.pid)
            time.sleep(_IDLE_SECONDS)
            idle = 100 * (cpu_seconds(producer.pid) - before) / _IDLE_SECONDS
            return {"seconds": seconds, "MB": resident_megabytes(producer.pid), "MB at most": peak,
                    "idle CPU %": max(idle, 0.01)}  # fmt: skip


def acknowledged(positions: Path) -> int:
    """How far all files of a producer are."""
    try:
        return sum(int(life["offset"]) for life in json.loads(positions.read_text())["lives"])
    except (ValueError, OSError):
        return 0


def by_hosts(folder: Path, program: list[str], count: int) -> Point:
    """Two lines of each of so many hosts, one worker; then it is started again."""
    with durable_server(folder) as server:
        common = {"NATS_URL": server.url, "SHIPPER_SUBJECT": "shipper", "SHIPPER_STREAM": "logs"}
        make_streams(program, {**common, "SHIPPER_PARTITIONS": str(quiet_fleet.PARTITIONS)}, "200MiB")
        quiet_fleet.generate(server.port, quiet_fleet.PARTITIONS, count, 0, 2 * count, 0)
        worker = quiet_fleet.worker(folder, program, common, "0-%d" % (quiet_fleet.PARTITIONS - 1))
        with worker as consumer:
            started = time.monotonic()
            quiet_fleet.committed(server, quiet_fleet.PARTITIONS, 2 * count, 900)
            seconds = time.monotonic() - started
            cpu = cpu_seconds(consumer.pid)
            memory = resident_megabytes(consumer.pid)
        started = time.monotonic()
        with worker as consumer:
            consumer.wait_for("Waiting for messages on subject shipper.p19.>", 60)
            return {"seconds": seconds, "CPU us a line": cpu / (2 * count) * 1e6, "MB": memory,
                    "restart s": time.monotonic() - started}  # fmt: skip


def by_partitions(folder: Path, program: list[str], count: int) -> Point:
    """The same lines of 1,000 hosts in so many partitions, one worker; and what it costs when it is idle."""
    with durable_server(folder) as server:
        common = {"NATS_URL": server.url, "SHIPPER_SUBJECT": "shipper", "SHIPPER_STREAM": "logs"}
        make_streams(program, {**common, "SHIPPER_PARTITIONS": str(count)}, "64MiB")
        quiet_fleet.generate(server.port, count, 1000, 0, _MESSAGES, 0)
        with quiet_fleet.worker(folder, program, common, "0-%d" % (count - 1)) as consumer:
            started = time.monotonic()
            quiet_fleet.committed(server, count, _MESSAGES, 300)
            seconds = time.monotonic() - started
            time.sleep(2)
            before = cpu_seconds(consumer.pid)
            time.sleep(_IDLE_SECONDS)
            idle = 100 * (cpu_seconds(consumer.pid) - before) / _IDLE_SECONDS
            return {"seconds": seconds, "MB": resident_megabytes(consumer.pid), "idle CPU %": max(idle, 0.01)}


def draw(title: str, points: list[Point]) -> tuple[dict[str, float], str]:
    """The exponent of each curve, and a chart of all that was measured."""
    names = [name for name in points[0] if name != title]
    curves = [(name, [(point[title], point[name]) for point in points]) for name in names]
    exponents = {name: round(chart.exponent(some), 2) for name, some in curves}
    labelled = [("%s, exponent %.2f" % (name, exponents[name]), some) for name, some in curves]
    note = "both axes logarithmic; an exponent of 1 is in proportion, 0 is flat"
    picture = chart.curves("Growth with the number of %s" % title, note, title, "", labelled)
    return exponents, picture


if __name__ == "__main__":
    raise SystemExit(main())
