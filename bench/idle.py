# SPDX-License-Identifier: GPL-3.0-or-later
"""What a producer costs that has nothing to do: resident memory and CPU, against what was promised of it.

It is connected, has shipped its files and waits for more. Exits with 1 where a promise does not hold.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from harness import Program, bundle, cpu_seconds, resident_megabytes, write_lines

from tests.support import NatsServer

MEGABYTES_MOST = 35.0
CPU_PERCENT_MOST = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to watch it; %(default)s without")
    parser.add_argument("--files", type=int, default=3, help="how many files it tails; %(default)s without")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as folder:
        return measure(Path(folder), options.seconds, options.files)


def measure(folder: Path, seconds: float, count: int) -> int:
    for number in range(count):
        write_lines(folder / ("app%d.log" % number), 10_000)
    program = bundle(folder)
    with NatsServer(folder / "nats") as server:
        settings = {
            "NATS_URL": server.url,
            "SHIPPER_SUBJECT": "shipper",
            "SHIPPER_FILE": str(folder / "app*.log"),
            "SHIPPER_STATE": str(folder / "state"),
            "HOSTNAME": "web1.example.net",
        }
        with Program(program, "producer", settings, folder / "producer.log") as producer:
            producer.wait_for("Publishing")
            time.sleep(5)  # until the files are shipped and polling has slowed down
            before = cpu_seconds(producer.pid)
            time.sleep(seconds)
            percent = 100 * (cpu_seconds(producer.pid) - before) / seconds
            megabytes = resident_megabytes(producer.pid)
    print("an idle producer with %d files, watched for %.0f s" % (count, seconds))
    print("  memory      %.1f MB resident, promised at most %.0f" % (megabytes, MEGABYTES_MOST))
    print("  CPU         %.2f %% of a core, promised at most %.1f" % (percent, CPU_PERCENT_MOST))
    return 0 if megabytes <= MEGABYTES_MOST and percent <= CPU_PERCENT_MOST else 1


if __name__ == "__main__":
    raise SystemExit(main())
