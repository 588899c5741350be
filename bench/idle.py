# SPDX-License-Identifier: GPL-3.0-or-later
"""What a producer costs that has nothing to do, and what very many files cost: memory and CPU beside what was promised.

Connected, with all its files shipped, it waits for more: with 3 files, and with 2,000. Then 2,000 files with a backlog
of a megabyte each: what it takes at most while it ships them. The limit is an interpreter that has only loaded nats-py
and ssl. Exits with 1 where a promise does not hold.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import chart
import results
from harness import (
    Program,
    ask,
    bundle,
    cpu_seconds,
    durable_server,
    durable_settings,
    kept,
    make_streams,
    resident_megabytes,
    wait_until,
    write_lines,
)

from shipper_runtime.jetstream import JetStream
from tests.support import NatsServer

MANY = 2000
# Promised: MB resident, and per cent of a core.
FEW_MOST, MANY_MOST = (32.0, 0.3), (80.0, 2.0)
_FIRST = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to watch it; %(default)s without")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as name:
        folder = Path(name)
        program = bundle(folder)
        least = only_imports()
        few, few_cpu = measure(folder / "few", program, 3, 10_000, options.seconds)
        many, many_cpu = measure(folder / "many", program, MANY, 100, options.seconds)
        backlog, _cpu = measure(folder / "backlog", program, MANY, 10_000, 0)
    print("a producer that waits, watched for %.0f s" % options.seconds)
    print("  imports     %.1f MB, a Python that has loaded nats-py, ssl and asyncio" % least)
    good = True
    for title, megabytes, percent, (most, percent_most) in (
        ("3 files", few, few_cpu, FEW_MOST),
        ("%d files" % MANY, many, many_cpu, MANY_MOST),
    ):
        good = good and megabytes <= most and percent <= percent_most
        print("  %-11s %.1f MB, promised %g: %s" % (title, megabytes, most, kept(megabytes <= most)))
        print(
            "              %.2f %% of a core, promised %g: %s" % (percent, percent_most, kept(percent <= percent_most))
        )
    good = good and backlog <= MANY_MOST[0]
    print("  backlog     %.1f MB at most, promised %g: %s" % (backlog, MANY_MOST[0], kept(backlog <= MANY_MOST[0])))
    document = {
        "imports_megabytes": round(least, 1),
        "few_megabytes": round(few, 1),
        "few_cpu_percent": round(few_cpu, 2),
        "many_megabytes": round(many, 1),
        "many_cpu_percent": round(many_cpu, 2),
        "many_with_a_backlog_megabytes": round(backlog, 1),
    }
    rows = [
        ("only the imports", least, "limit"),
        ("3 files, idle", few, "ours"),
        ("%d files, idle" % MANY, many, "ours"),
        ("%d files with a backlog, at most" % MANY, backlog, "ours"),
    ]
    results.save("idle", document, chart.bars("A producer's memory", "MB resident, logarithmic", "MB", rows))
    return 0 if good else 1


def only_imports() -> float:
    """MB resident."""
    loading = "import sys; sys.modules['aiohttp'] = None; import asyncio, nats, ssl"
    waiting = loading + "; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", waiting], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = resident_megabytes(process.pid)
        process.kill()
    return found


def measure(folder: Path, program: list[str], files: int, lines: int, seconds: float) -> tuple[float, float]:
    """MB resident and per cent of a core once all is shipped; for 0 seconds, MB at most until then, and 0."""
    logs = folder / "logs"
    logs.mkdir(parents=True)
    first = logs / "app0.log"
    write_lines(first, lines)
    for number in range(1, files):
        shutil.copyfile(first, logs / ("app%d.log" % number))
    with durable_server(folder) as server:
        writing, _reading = durable_settings(server, folder, first)
        writing["SHIPPER_FILE"] = "%s/*.log" % logs
        make_streams(program, writing, "4GiB")
        with Program(program, "producer", writing, folder / "producer.log") as producer:
            size = files * first.stat().st_size
            if not wait_until(lambda: stored(server) >= size, 600):
                raise SystemExit("it has not shipped all")
            found = resident_megabytes(producer.pid, "VmHWM"), 0.0
            if seconds:
                time.sleep(_FIRST)  # until polling has slowed down
                before = cpu_seconds(producer.pid)
                time.sleep(seconds)
                percent = 100 * (cpu_seconds(producer.pid) - before) / seconds
                found = resident_megabytes(producer.pid), percent
    shutil.rmtree(folder)
    return found


def stored(server: NatsServer) -> int:
    """The bytes that the stream has, with what each message has beside its payload."""

    async def look(js: JetStream) -> int:
        return int((await js.stream_info("logs-p0"))["state"]["bytes"])

    return ask(server, look)


if __name__ == "__main__":
    raise SystemExit(main())
