# SPDX-License-Identifier: GPL-3.0-or-later
"""Drives a tailer as the producer does, with a clock of its own, and puts together what was read."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from shipper_runtime.blocks import Block
from shipper_runtime.positions import PositionStore
from shipper_runtime.tailer import Source, Tailer

LIMIT = 64
HARD_LIMIT = 96


class Archive:
    """What arrived: per source its lives in the order they came, and of each its bytes."""

    def __init__(self) -> None:
        self.lives: dict[bytes, dict[str, tuple[int, bytearray]]] = {}
        self.blocks: list[Block] = []

    def take(self, block: Block) -> None:
        span = block.span
        data = bytes(block.payload) + (b"" if span.partial else b"\n")
        assert len(data) == span.end - span.begin > 0
        assert len(block.payload) <= HARD_LIMIT
        self.blocks.append(block)
        begin, known = self.lives.setdefault(span.source, {}).setdefault(span.life, (span.begin, bytearray()))
        at = span.begin - begin
        assert 0 <= at <= len(known), "a hole: %d bytes known, then %s" % (len(known), span)
        again = bytes(known[at : at + len(data)])
        assert data.startswith(again), "other bytes for the same offsets: %r, then %r" % (again, data)
        known.extend(data[len(again) :])

    def of(self, path: Path | str) -> bytes:
        """The source's bytes."""
        return b"".join(bytes(known) for _nothing, known in self.lives.get(os.fsencode(path), {}).values())


class Drive:
    """A producer without a network: restart() and crash() make a new tailer from what was saved."""

    def __init__(self, folder: Path, *patterns: Path | str, start: str = "beginning", descriptors: int = 64) -> None:
        self.state = str(folder / "state")
        self.patterns: Sequence[str] = [str(pattern) for pattern in patterns]
        self.start = start
        self.descriptors = descriptors
        self.now = 1000.0
        self.archive = Archive()
        self.pending: list[tuple[Source, Block]] = []
        self.begin()

    def begin(self) -> None:
        self.store = PositionStore(self.state)
        # As if the stream had been asked.
        self.store.confirmed()
        try:
            self.tailer = Tailer(
                self.patterns, self.store, start=self.start, now=self.now, descriptors=self.descriptors
            )
        except BaseException:
            self.store.close()
            raise

    def stop(self) -> None:
        self.store.save_if_dirty()
        self.crash()

    def crash(self) -> None:
        self.pending.clear()
        self.tailer.close()
        self.store.close()

    def turn(self, ack: bool = True) -> int:
        """One round of the producer's loop; how many blocks it read."""
        self.tailer.scan(self.now)
        count = 0
        for source in self.tailer.due(self.now):
            block = source.read(LIMIT, HARD_LIMIT, self.now)
            if block is not None:
                assert source.read(LIMIT, HARD_LIMIT, self.now) is block
                self.archive.take(block)
                self.pending.append((source, block))
                count += 1
        if ack:
            self.ack()
        return count

    def ack(self) -> None:
        for source, block in self.pending:
            source.acked(block)
        self.pending.clear()

    def run(self, seconds: float = 3.0, step: float = 0.3) -> Archive:
        """Turns for so long, as many as there is something to read."""
        end = self.now + seconds
        while self.now < end:
            while self.turn():
                pass
            self.now += step
        return self.archive


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def rename(path: Path, keep: int = 9) -> None:
    """logrotate's way: app.log.1 becomes app.log.2, and so on; the path itself is then missing."""
    for number in range(keep, 0, -1):
        for ending in ("", ".gz", ".bz2", ".xz"):
            old = path.with_name("%s.%d%s" % (path.name, number, ending))
            if old.exists():
                old.rename(path.with_name("%s.%d%s" % (path.name, number + 1, ending)))
    path.rename(path.with_name(path.name + ".1"))


def copytruncate(path: Path, keep: int = 9) -> None:
    for number in range(keep, 0, -1):
        for ending in ("", ".gz", ".bz2", ".xz"):
            old = path.with_name("%s.%d%s" % (path.name, number, ending))
            if old.exists():
                old.rename(path.with_name("%s.%d%s" % (path.name, number + 1, ending)))
    shutil.copyfile(path, path.with_name(path.name + ".1"))
    os.truncate(path, 0)


def compress(path: Path) -> Path:
    made = path.with_name(path.name + ".gz")
    with path.open("rb") as source, gzip.open(made, "wb") as target:
        shutil.copyfileobj(source, target)
    path.unlink()
    return made
