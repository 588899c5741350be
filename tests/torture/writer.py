# SPDX-License-Identifier: GPL-3.0-or-later
"""An application that writes a log, rotates it in every way that is in use, and never forgets a byte it wrote."""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Callable

KEPT = 8
"""Rotated files that are never cleaned up: a killed producer may have to look into them once more."""
LONG_LINE = 1_500_000
_POOL = 1 << 20
_CONFIRM_SECONDS = 0.8


class Writer(threading.Thread):
    """Writes lines to path in bursts, between orders that it is given; truth is the file of all bytes written.

    archived tells whether everything written so far is safe in every archive.
    """

    def __init__(self, path: Path, truth: Path, seed: str, archived: Callable[[int], bool]) -> None:
        super().__init__(name="writer of %s" % path, daemon=True)
        self.path = path
        self.truth = truth
        self.length = 0
        self.error: BaseException | None = None
        self.rotations: Counter[str] = Counter()
        self._archived = archived
        self._chance = random.Random(seed)
        # Odd by nature: NUL, carriage returns and invalid UTF-8 are in it.
        self._pool = self._chance.getrandbits(8 * _POOL).to_bytes(_POOL, "big").replace(b"\n", b"\0")
        self._orders: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._writing = threading.Event()
        self._number = 0
        self._files = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._truth = os.open(truth, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._file = self._create()
        self._banner()

    def go(self) -> None:
        """Write."""
        self._writing.set()

    def hold(self) -> None:
        """Carry out what was ordered, and then hold still, behind a whole line."""
        self._writing.clear()
        self._order(lambda: None)
        self._orders.join()

    def rotate(self, how: str) -> None:
        """Order a rotation: rename, linger, copytruncate, delete or torn."""
        self._order(lambda: self._rotate(how))

    def flood(self, size: int) -> None:
        """Order so many bytes as quickly as possible."""
        self._order(lambda: self._flood(size))

    def clean_up(self) -> None:
        """Remove old rotated files; the writer holds, and everything has been archived."""
        number = KEPT + 1
        while self._rotated(number).exists():
            self._rotated(number).unlink()
            number += 1

    def end(self) -> None:
        """Stop for good."""
        self._orders.put(None)
        if self.is_alive():
            self.join(10)
        os.close(self._file)
        os.close(self._truth)

    def _order(self, order: Callable[[], None]) -> None:
        if self.error is None:
            self._orders.put(order)

    def run(self) -> None:
        while True:
            pause = self._chance.choice((0.002, 0.01, 0.02, 0.04))
            try:
                order = self._orders.get(timeout=pause)
            except queue.Empty:
                if self._writing.is_set() and not self._guarded(self._burst):
                    return
                continue
            try:
                if order is None or not self._guarded(order):
                    return
            finally:
                self._orders.task_done()

    def _guarded(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:
            # Shown by who looks at it; what waits for orders must not wait for ever.
            self.error = error
            while not self._orders.empty():
                self._orders.get_nowait()
                self._orders.task_done()
            return False
        return True

    def _create(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self.path, flags, 0o644)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        os.write(self._truth, data)
        self.length += len(data)

    def _line(self) -> bytes:
        self._number += 1
        kind = self._chance.random()
        size = min(int(self._chance.lognormvariate(4, 1.2)), 20_000)
        if kind < 0.03:
            return b"\n"
        if kind < 0.05:
            return b"\0" * size + b"\n"
        if kind < 0.05005:
            size = LONG_LINE
        head = b"%d " % self._number
        if kind < 0.30:
            begin = self._chance.randrange(_POOL)
            body = (self._pool[begin : begin + size] + self._pool + self._pool)[:size]
            return head + body + b"\n"
        ending = b"\r\n" if kind < 0.35 else b"\n"
        return head + b"%x " % self._chance.getrandbits(64) + b"request served " * (size // 15) + ending

    def _lines(self, count: int) -> bytes:
        return b"".join(self._line() for _turn in range(count))

    def _burst(self) -> None:
        data = self._lines(self._chance.randint(1, 25))
        if self._chance.random() < 0.2:
            # In two steps, the first of which mostly ends within a line.
            cut = self._chance.randrange(len(data))
            self._write(data[:cut])
            time.sleep(self._chance.choice((0.0, 0.005, 0.03)))
            data = data[cut:]
        self._write(data)

    def _flood(self, size: int) -> None:
        end = self.length + size
        while self.length < end:
            begin = self._chance.randrange(_POOL - 4096)
            body = self._pool[begin : begin + 4096]
            lines = []
            for _turn in range(64):
                self._number += 1
                lines.append(b"%d %s\n" % (self._number, body))
            self._write(b"".join(lines))

    def _rotate(self, how: str) -> None:
        if how == "delete":
            if not self._confirmed():
                self.rotations["delete, left out"] += 1
                return
            self.path.unlink()
            self._reopen()
        elif how == "copytruncate":
            self._shift()
            self._copy()
            os.truncate(self.path, 0)
        elif how == "torn":
            line = self._line()
            cut = len(line) // 2
            self._write(line[:cut])
            self._rename()
            self._reopen()
            self._write(line[cut:])
        else:
            self._rename()
            if how == "linger":
                # The new file is there already; the application has not been told yet.
                os.close(self._create())
                for _turn in range(self._chance.randint(1, 3)):
                    self._burst()
                    time.sleep(self._chance.choice((0.0, 0.02, 0.2)))
            self._reopen()
        self.rotations[how] += 1
        self._banner()

    def _banner(self) -> None:
        """No two files begin alike for long, nor with NULs, which a truncation may have left: nobody could tell."""
        self._files += 1
        self._write(b"file %d, line %d\n" % (self._files, self._number))

    def _confirmed(self) -> bool:
        end = time.monotonic() + _CONFIRM_SECONDS
        while not self._archived(self.length):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def _rotated(self, number: int) -> Path:
        return self.path.with_name("%s.%d" % (self.path.name, number))

    def _shift(self) -> None:
        last = 1
        while self._rotated(last).exists():
            last += 1
        for number in range(last - 1, 0, -1):
            self._rotated(number).rename(self._rotated(number + 1))

    def _rename(self) -> None:
        self._shift()
        self.path.rename(self._rotated(1))

    def _reopen(self) -> None:
        os.close(self._file)
        self._file = self._create()

    def _copy(self) -> None:
        """In pieces: the copy is there for a while before it is whole."""
        pause = self._chance.choice((0.0, 0.0, 0.01, 0.05))
        with open(self.path, "rb") as source, open(self._rotated(1), "xb", buffering=0) as target:
            size = max(1, os.fstat(source.fileno()).st_size // 4 + 1)
            while True:
                data = source.read(size)
                if not data:
                    return
                target.write(data)
                time.sleep(pause)
