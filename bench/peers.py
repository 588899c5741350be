# SPDX-License-Identifier: GPL-3.0-or-later
"""Durable mode beside what an operator would pick instead, and beside what cannot be beaten, in one run.

1.5 million lines, 160 MB, from one host's file into one archive file, several rounds in turn; what is compared are
medians. What is fast, our two programs each alone and the limits, moves eight times as much, or it would be over before
the consumer's first commit. A rate is from the first bytes' being there to the last one's. CPU is of each side's
process alone; the consumer's from when it waits for messages, as its peer does.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Callable

import chart
import limits
import line_by_line
import results
import rsyslog
from harness import (
    LINES,
    Figure,
    Program,
    archive_size,
    bundle,
    cpu_seconds,
    durable_server,
    durable_settings,
    is_copied,
    kept,
    make_streams,
    repeat,
    wait_for_archive,
    wait_for_commit,
    wait_for_stream,
    wait_until,
    write_lines,
)

from tests.support import NatsServer

# How often the file is repeated for what is fast.
LONG = 8
# Awaited one by one, all lines would take minutes; the rate does not depend on how many they are.
ACKNOWLEDGED_LINES = 50_000
# What is promised: of the first the rate is at least so many times that of the second.
PROMISES = (
    ("durable", "rsyslog RELP", 10.0),
    ("durable", "rsyslog TCP", 4.0),
    ("durable", "line by line, core NATS", 15.0),
    ("producer alone", "publish limit", 0.7),
    ("consumer alone", "fetch limit", 0.6),
    # A fetch does not write: where the disk is slower than that, this is the limit.
    ("consumer alone", "copy and sync", 0.6),
)
# And CPU of a process for each GB: at most so much of the other's.
CPU_PROMISES = (
    ("durable", "producer", "rsyslog TCP", "sender", 0.2),
    ("durable", "consumer", "rsyslog TCP", "receiver", 0.2),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=LINES, help="how many lines; %(default)s without")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured; %(default)s without")
    options = parser.parse_args()
    figures: dict[str, list[Figure]] = {}
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as name:
        folder = Path(name)
        source = folder / "app.log"
        write_lines(source, options.lines)
        print("%d lines, %.1f MB; %d rounds" % (options.lines, source.stat().st_size / 1e6, options.rounds))
        print("rsyslog %s, Python %s" % (rsyslog.install(), platform.python_version()), flush=True)
        long = folder / "long.log"
        repeat(source, long, LONG)
        program = bundle(folder)
        for number in range(options.rounds):
            for title, figure in one_round(folder / "round", program, source, long):
                figures.setdefault(title, []).append(figure)
                print("  %d  %s" % (number + 1, described(title, figure)), flush=True)
    medians = {title: median(some) for title, some in figures.items()}
    good = report(medians)
    save(medians, options.lines, options.rounds)
    return 0 if good else 1


def one_round(folder: Path, program: list[str], source: Path, long: Path) -> list[tuple[str, Figure]]:
    """Everything once."""
    found = []

    def empty() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        os.sync()
        return folder

    found.append(("copy and sync", limits.copy(long, empty() / "copy")))
    with durable_server(empty()) as server:
        make_streams(program, durable_settings(server, folder, long)[0], "4GiB")
        found.append(("publish limit", limits.publish(server.port, limits.blocks(long))))
        found.append(("fetch limit", limits.fetch(server.port, long.stat().st_size)))
    found += ours_apart(empty(), program, long)
    found.append(("durable", ours(empty(), program, source)))
    found.append(("core NATS", ours_core(empty(), program, source)))
    found.append(("rsyslog TCP", rsyslog.ship(empty(), source, "TCP")))
    found.append(("rsyslog RELP", rsyslog.ship(empty(), source, "RELP")))
    with NatsServer(empty() / "nats") as server:
        found.append(("line by line, core NATS", line_by_line.ship(server, folder, source, acknowledged=False)))
    few = folder.with_name("few.log")
    with source.open("rb") as lines:
        few.write_bytes(b"".join(islice(lines, ACKNOWLEDGED_LINES)))
    with durable_server(empty()) as server:
        make_streams(program, durable_settings(server, folder, few)[0], "4GiB")
        shutil.rmtree(folder / "archive")
        found.append(("line by line, acknowledged", line_by_line.ship(server, folder, few, acknowledged=True)))
    shutil.rmtree(folder)
    return found


def ours_apart(folder: Path, program: list[str], source: Path) -> list[tuple[str, Figure]]:
    """First the producer fills a stream that nobody reads, then a consumer empties it, synced and committed."""
    size = source.stat().st_size
    archive = folder / "archive"
    with durable_server(folder) as server:
        writing, reading = durable_settings(server, folder, source)
        make_streams(program, writing, "4GiB")
        with Program(program, "producer", writing, folder / "producer.log") as producer:
            first, last = wait_for_stream(server, size)
            alone = Figure(last - first, size, {"producer": cpu_seconds(producer.pid)}, True)
        with Program(program, "consumer", reading, folder / "consumer.log") as consumer:
            consumer.wait_for("Waiting for messages")
            began, before = time.monotonic(), cpu_seconds(consumer.pid)
            wait_for_archive(archive, size)
            cpu = {"consumer": cpu_seconds(consumer.pid) - before}
        # Told to stop it commits what is not committed yet, and does not wait for its second to be over.
        committed = time.monotonic()
        wait_for_commit(server)
        emptied = Figure(committed - began, size, cpu, is_copied(source, archive))
    return [("producer alone", alone), ("consumer alone", emptied)]


def ours(folder: Path, program: list[str], source: Path) -> Figure:
    """All of the way through a stream; it is committed, too, before the CPU is read."""
    with durable_server(folder) as server:
        writing, reading = durable_settings(server, folder, source)
        make_streams(program, writing, "4GiB")
        return shipped(folder, program, source, server, (writing, reading), lambda: wait_for_commit(server))


def ours_core(folder: Path, program: list[str], source: Path) -> Figure:
    """All of the way without a stream."""
    with NatsServer(folder / "nats") as server:
        settings = [dict(each) for each in durable_settings(server, folder, source)]
        for each in settings:
            del each["SHIPPER_STREAM"]
        del settings[1]["SHIPPER_GROUP"]
        return shipped(folder, program, source, server, (settings[0], settings[1]), lambda: None)


def shipped(
    folder: Path,
    program: list[str],
    source: Path,
    server: NatsServer,
    settings: tuple[dict[str, str], dict[str, str]],
    settled: Callable[[], object],
) -> Figure:
    """Both programs side by side, from the archive's first bytes to its last."""
    writing, reading = settings
    archive = folder / "archive"
    with Program(program, "consumer", reading, folder / "consumer.log") as consumer:
        consumer.wait_for("Waiting for messages")
        before = cpu_seconds(consumer.pid)
        with Program(program, "producer", writing, folder / "producer.log") as producer:
            wait_until(lambda: archive_size(archive) > 0, 60)
            began = time.monotonic()
            finished, arrived = wait_for_archive(archive, source.stat().st_size)
            settled()
            cpu = {"producer": cpu_seconds(producer.pid), "consumer": cpu_seconds(consumer.pid) - before}
            cpu["nats-server"] = cpu_seconds(server.pid)
    return Figure(finished - began, arrived, cpu, is_copied(source, archive))


def median(figures: list[Figure]) -> Figure:
    return Figure(
        statistics.median(figure.seconds for figure in figures),
        round(statistics.median(figure.size for figure in figures)),
        {name: statistics.median(figure.cpu[name] for figure in figures) for name in figures[0].cpu},
        all(figure.whole for figure in figures),
    )


def described(title: str, figure: Figure) -> str:
    cpu = ", ".join("%s %.1f" % (name, figure.cpu_per_gigabyte(name)) for name in figure.cpu)
    lost = "" if figure.whole else ", NOT all of it: %.1f MB arrived" % (figure.size / 1e6)
    return "%-27s %6.1f MB/s, CPU s/GB: %s%s" % (title, figure.rate, cpu, lost)


def report(medians: dict[str, Figure]) -> bool:
    """Print the medians and the ratios; whether all is as promised."""
    print("medians")
    for title, figure in medians.items():
        print("     %s" % described(title, figure))
    good = medians["durable"].whole and medians["consumer alone"].whole
    for one, other, least in PROMISES:
        ratio = medians[one].rate / medians[other].rate
        good = good and ratio >= least
        print("  %-15s %6.2f x %s, promised %g: %s" % (one, ratio, other, least, kept(ratio >= least)))
    for one, process, other, peer, most in CPU_PROMISES:
        ratio = medians[one].cpu_per_gigabyte(process) / medians[other].cpu_per_gigabyte(peer)
        good = good and ratio <= most
        print(
            "  CPU of the %s %.2f x %s's %s, promised %g: %s" % (process, ratio, other, peer, most, kept(ratio <= most))
        )
    return good


def save(medians: dict[str, Figure], lines: int, rounds: int) -> None:
    document = {
        "lines": lines,
        "rounds": rounds,
        "figures": {
            title: {
                "megabytes_per_second": round(figure.rate, 2),
                "cpu_seconds_per_gigabyte": {name: round(figure.cpu_per_gigabyte(name), 2) for name in figure.cpu},
                "identical": figure.whole,
            }
            for title, figure in medians.items()
        },
    }
    kinds = dict.fromkeys(("durable", "core NATS", "producer alone", "consumer alone"), "ours")
    rows = [
        (title, figure.rate, kinds.get(title, "limit" if "limit" in title or "copy" in title else "peer"))
        for title, figure in sorted(medians.items(), key=lambda item: -item[1].rate)
    ]
    note = "MB/s on a logarithmic scale, %d lines, medians of %d, two cores, server included" % (lines, rounds)
    results.save("peers", document, chart.bars("One host's file into the archive", note, "MB/s", rows))


if __name__ == "__main__":
    raise SystemExit(main())
