# SPDX-License-Identifier: GPL-3.0-or-later
"""Applications that write logs on a host of the lab, and rotate them; what they wrote is kept beside, for a comparison.

    traffic.py LOGS TRUTH           until SIGTERM, which lets the round in hand be finished
    traffic.py LOGS TRUTH ROUNDS    so many rounds, without a pause: nothing is rotated by 20

Each file is written and rotated in its own way. Bytes are as files have them: broken UTF-8, NUL, empty lines, CRLF.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

ROUND_SECONDS = 0.1
KEPT = 50


class Log:
    """One log file. Subclasses say what a round writes, and when and how the file is rotated."""

    name = ""
    rotate_bytes = 200_000

    def __init__(self, logs: Path, truth: Path) -> None:
        self.path = logs / self.name
        self.truth = truth / self.name
        self.number = self.truth.stat().st_size if self.truth.exists() else 0

    def write(self) -> None:
        data = self.lines()
        # Both files or none: only SIGTERM ends this, and not in here.
        with self.path.open("ab") as log, self.truth.open("ab") as truth:
            os.chmod(self.path, 0o640)
            log.write(data)
            truth.write(data)
        self.number += len(data)
        if self.path.stat().st_size > self.rotate_bytes:
            self.shift()
            self.rotate()

    def lines(self) -> bytes:
        raise NotImplementedError

    def shift(self) -> None:
        for number in range(KEPT, 0, -1):
            old = self.path.with_name("%s.%d" % (self.name, number))
            if old.exists():
                old.rename(old.with_name("%s.%d" % (self.name, number + 1)))

    def rotate(self) -> None:
        self.path.rename(self.path.with_name(self.name + ".1"))


class Requests(Log):
    """A busy one, which is renamed."""

    name = "requests.log"

    def lines(self) -> bytes:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return b"".join(
            b"%s GET /item/%d?byte=%d 200 %d\n" % (stamp.encode(), random.getrandbits(20), self.number, number)
            for number in range(random.randint(1, 60))
        )


class Copied(Log):
    """One that is copied and cut."""

    name = "copied.log"
    rotate_bytes = 60_000

    def lines(self) -> bytes:
        return b"".join(b"%d copied %d\n" % (self.number, number) for number in range(random.randint(0, 25)))

    def rotate(self) -> None:
        shutil.copyfile(self.path, self.path.with_name(self.name + ".1"))
        os.truncate(self.path, 0)


class Binary(Log):
    """What nobody should write into a log."""

    name = "binary.log"

    def lines(self) -> bytes:
        # Never the same twice, and no line without an end.
        return b"%d %s\r\n\n\x00\xff\xfe\n" % (
            self.number,
            random.randbytes(random.randint(0, 900)).replace(b"\n", b""),
        )


class Quiet(Log):
    """A line now and then."""

    name = "quiet.log"
    rotate_bytes = 300

    def lines(self) -> bytes:
        return b"it is quiet at %d\n" % time.time_ns() if random.random() < 0.05 else b""


def main(logs: str, truth: str, rounds: str = "") -> int:
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_signal: over.set())
    files = [kind(Path(logs), Path(truth)) for kind in (Requests, Copied, Binary, Quiet)]
    for _turn in range(int(rounds)) if rounds else itertools.count():
        for file in files:
            file.write()
        if over.wait(0 if rounds else ROUND_SECONDS):
            break
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
