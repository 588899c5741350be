# SPDX-License-Identifier: GPL-3.0-or-later
"""Random histories of a log file against the tailer: what was written is what arrives, in order, once."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from .tailing import Drive, append, copytruncate, rename

STEPS = 30
# More than there are rotations: what is deleted before it was read is lost by right.
KEPT = STEPS + 1
CODECS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


class LogFile(RuleBasedStateMachine):
    """One writer, one log file, and everything that may befall both, and the tailer."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="tailer-model-"))
        self.log = self.folder / "app.log"
        self.written = bytearray()
        self.serial = 0
        self.up = True
        self.saved = 0

    @initialize(glob=st.booleans(), banner=st.sampled_from([b"", b"# begins\n", b"# %s\n" % (b"=" * 900)]))
    def start(self, glob: bool, banner: bytes) -> None:
        self.banner = banner
        append(self.log, b"")
        self.drive = Drive(self.folder, str(self.log) + ("*" if glob else ""))

    def write(self, data: bytes) -> None:
        append(self.log, data)
        self.written += data

    def begin_file(self) -> None:
        append(self.log, b"")
        if self.banner:
            # Files that begin alike; of two that are alike as a whole nothing could tell which is which.
            self.serial += 1
            self.write(self.banner + b"begun %d\n" % self.serial)

    @rule(count=st.integers(1, 12))
    def write_lines(self, count: int) -> None:
        for _turn in range(count):
            self.serial += 1
            self.write(b"line %d\n" % self.serial)

    @rule(kind=st.sampled_from([b"", b"\0\0", b"caf\xe9\r", b"x" * 80, b"y" * 150, b"z" * 300]))
    def write_odd_line(self, kind: bytes) -> None:
        self.serial += 1
        self.write(b"odd %d %s\n" % (self.serial, kind))

    @rule()
    def write_part_of_a_line(self) -> None:
        self.serial += 1
        self.write(b"part %d " % self.serial)

    @rule()
    def rename_and_create(self) -> None:
        rename(self.log, KEPT)
        self.begin_file()

    @rule(turn=st.booleans())
    def rename_and_create_later(self, turn: bool) -> None:
        rename(self.log, KEPT)
        if turn and self.up:
            self.drive.turn()
        self.begin_file()

    @rule()
    def copy_and_truncate(self) -> None:
        copytruncate(self.log, KEPT)

    @precondition(lambda self: self.up)
    @rule()
    def delete_and_create(self) -> None:
        # What was never opened cannot be read after it was deleted.
        self.settle()
        self.write(b"last words\n")
        self.log.unlink()
        self.begin_file()
        self.settle()

    @rule(ending=st.sampled_from(sorted(CODECS)), number=st.integers(1, 3))
    def compress(self, ending: str, number: int) -> None:
        plain = self.log.with_name("app.log.%d" % number)
        if plain.exists():
            before = plain.stat()
            made = plain.with_name(plain.name + ending)
            with plain.open("rb") as source, CODECS[ending](made, "wb") as target:
                shutil.copyfileobj(source, target)
            os.utime(made, ns=(before.st_atime_ns, before.st_mtime_ns))
            plain.unlink()

    @precondition(lambda self: self.up)
    @rule(seconds=st.sampled_from([0.001, 0.3, 2.0, 70.0]), ack=st.booleans())
    def turn(self, seconds: float, ack: bool) -> None:
        self.drive.turn(ack)
        self.drive.now += seconds

    @precondition(lambda self: self.up)
    @rule()
    def acknowledge(self) -> None:
        self.drive.ack()

    @precondition(lambda self: self.up)
    @rule()
    def save(self) -> None:
        self.drive.store.save_if_dirty()

    @precondition(lambda self: self.up)
    @rule()
    def crash(self) -> None:
        self.drive.crash()
        self.up = False

    @precondition(lambda self: self.up)
    @rule()
    def stop(self) -> None:
        self.drive.stop()
        self.up = False

    @precondition(lambda self: not self.up)
    @rule()
    def begin_again(self) -> None:
        self.drive.begin()
        self.up = True

    def settle(self, most: float = 4.0) -> None:
        """Until all has arrived, but for 4 s at least: each file whose last line is not complete is waited for."""
        self.drive.ack()
        end = self.drive.now + most
        self.drive.run(4.0)
        while self.drive.now < end and self.drive.archive.of(self.log) != self.written:
            self.drive.run(1.0)

    def teardown(self) -> None:
        try:
            if hasattr(self, "drive"):
                if not self.up:
                    self.drive.begin()
                self.write(b"the end\n")
                self.settle(60.0)
                arrived = self.drive.archive.of(self.log)
                assert list(self.drive.archive.lives) in ([], [os.fsencode(self.log)])
                assert arrived == bytes(self.written)
        finally:
            if hasattr(self, "drive"):
                self.drive.crash()
            shutil.rmtree(self.folder)


TestLogFile = LogFile.TestCase
TestLogFile.settings = settings(
    max_examples=int(os.environ.get("TAILER_EXAMPLES", "40")),
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=os.environ.get("TAILER_RANDOM") is None,
    suppress_health_check=list(HealthCheck),
)
