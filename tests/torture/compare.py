# SPDX-License-Identifier: GPL-3.0-or-later
"""What was written against what was archived: where they first differ, and what became of the lines from there on."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

# The archive's names end in what SHIPPER_OUTPUT puts behind {source}: %Y%m%d%H%M%S; and compressed ones in PACKED.
OUTPUT = "{source}-%Y%m%d%H%M%S"
PACKED = ".gz"
_NAME = re.compile(r"(.+)-[0-9]{14}(?:%s)?\Z" % re.escape(PACKED))
_SHOWN = 60


@dataclass(frozen=True)
class Diagnosis:
    """How got differs from written; offset is that of the first byte that differs, the others count lines and their
    bytes. Lines that are neither missing nor doubled but stand elsewhere are out of order."""

    offset: int
    missing: tuple[int, int]
    doubled: tuple[int, int]
    foreign: tuple[int, int]
    moved: tuple[int, int]
    wanted: bytes
    found: bytes

    def __str__(self) -> str:
        counts = (("missing", self.missing), ("doubled", self.doubled), ("foreign", self.foreign))
        parts = ["%d lines (%d bytes) %s" % (*count, word) for word, count in (*counts, ("out of order", self.moved))]
        return "first difference at byte %d: %s; wanted %r, found %r" % (
            self.offset, ", ".join(parts), self.wanted, self.found,
        )  # fmt: skip


def first_difference(written: bytes, got: bytes) -> int | None:
    """The offset of the first byte that differs, or where the shorter one ends; None if they are the same."""
    if written == got:
        return None
    low, high = 0, min(len(written), len(got))
    while low < high:
        middle = (low + high + 1) // 2
        if written[low:middle] == got[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def diagnose(written: bytes, got: bytes) -> Diagnosis | None:
    """What is wrong with got, or None if nothing is."""
    offset = first_difference(written, got)
    if offset is None:
        return None
    # From the beginning of the line in which they part.
    begin = written.rfind(b"\n", 0, offset) + 1
    wanted, found = _lines(written[begin:]), _lines(got[begin:])
    less, more = Counter(wanted), Counter(found)
    missing = less - more
    surplus = more - less
    # A line that was written before they part counts too: that is what a replay repeats.
    known = set(wanted)
    if any(line not in known for line in surplus):
        known.update(_lines(written[:begin]))
    doubled = Counter({line: count for line, count in surplus.items() if line in known})
    foreign = surplus - doubled
    return Diagnosis(
        offset=offset,
        missing=_size(missing),
        doubled=_size(doubled),
        foreign=_size(foreign),
        moved=_moved(wanted, found),
        wanted=written[offset : offset + _SHOWN],
        found=got[offset : offset + _SHOWN],
    )


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True) if b"\r" not in data else _split(data)


def _split(data: bytes) -> list[bytes]:
    # bytes.splitlines takes a carriage return for the end of a line.
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _size(lines: Counter[bytes]) -> tuple[int, int]:
    return sum(lines.values()), sum(len(line) * count for line, count in lines.items())


def _moved(wanted: list[bytes], found: list[bytes]) -> tuple[int, int]:
    """The fewest lines that have to be taken out so that the others are in order.

    Equal lines (empty ones) cannot be told apart and are left out; of doubled ones the copy counts that fits best.
    """
    counts = Counter(wanted)
    places = {line: place for place, line in enumerate(wanted) if counts[line] == 1}
    come = [places[line] for line in found if line in places]
    # The longest rising row of places: ends[n] is the lowest place in which a row of n + 1 ends, and at which turn it
    # came; before tells of each turn which one stands before it in its row.
    ends: list[int] = []
    turns: list[int] = []
    before: list[int] = []
    for turn, place in enumerate(come):
        at = bisect_left(ends, place)
        ends[at : at + 1] = [place]
        turns[at : at + 1] = [turn]
        before.append(turns[at - 1] if at else -1)
    in_order: set[int] = set()
    turn = turns[-1] if turns else -1
    while turn >= 0:
        in_order.add(come[turn])
        turn = before[turn]
    moved = set(come) - in_order
    return len(moved), sum(len(wanted[place]) for place in moved)


@dataclass(frozen=True)
class Look:
    """What stat said of an archive file."""

    size: int
    mtime: int
    inode: int


def list_archive(directory: Path) -> dict[str, Look]:
    """All files of an archive by their path below it, but for what begins with a dot."""
    found: dict[str, Look] = {}
    folders = [str(directory)] if directory.is_dir() else []
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                    continue
                look = entry.stat(follow_symlinks=False)
                found[os.path.relpath(entry.path, directory)] = Look(look.st_size, look.st_mtime_ns, look.st_ino)
    return found


def by_source(names: Iterable[str]) -> dict[str, list[str]]:
    """The files of each host and source, in name order, by what their names have in common: web1/var/log/app.log."""
    sources: dict[str, list[str]] = {}
    for name in sorted(names):
        match = _NAME.match(name)
        sources.setdefault(match.group(1) if match else name, []).append(name)
    return sources


class Right(NamedTuple):
    """A file that was found right: how it looked, at which offset it begins, and how much it holds."""

    look: Look
    offset: int
    size: int


def held(path: Path) -> tuple[bytes, bool]:
    """What a file holds, and whether that is all of it."""
    data = path.read_bytes()
    if path.suffix != PACKED:
        return data, True
    plain, rest = unpacked(data)
    return plain, not rest


def unpacked(data: bytes) -> tuple[bytes, bytes]:
    """What a gzip file holds up to its last whole member, and as it is what stands behind that."""
    plain = []
    while data:
        member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        with contextlib.suppress(zlib.error):
            piece = member.decompress(data)
        if not member.eof:
            break
        plain.append(piece)
        data = member.unused_data
    return b"".join(plain), data


class Checker:
    """Compares one source's files in one archive with the bytes written, reading only what has changed since.

    truth is the file that holds the bytes written.
    """

    def __init__(self, directory: Path, truth: Path) -> None:
        self.directory = directory
        self._truth = truth
        self.right: dict[str, Right] = {}

    def forget(self) -> None:
        """Read everything again next time."""
        self.right.clear()

    def compare(self, names: list[str], looks: dict[str, Look], length: int) -> str:
        """Of files in name order against the first length bytes: equal, short (right as far as it goes), or wrong."""
        offset = 0
        for name in names:
            known = self.right.get(name)
            if known is None or known[:2] != (looks[name], offset):
                self.right.pop(name, None)
                size, whole = self._same(name, looks[name], offset)
                if size < 0:
                    return "wrong"
                if not whole:
                    return "short"
                known = self.right[name] = Right(looks[name], offset, size)
            offset += known.size
        return "equal" if offset == length else "short" if offset < length else "wrong"

    def _same(self, name: str, look: Look, offset: int) -> tuple[int, bool]:
        """How much the file holds, below 0 where that is wrong, and whether that is all of it."""
        path = self.directory / name
        try:
            got, whole = held(path)
            if path.suffix != PACKED and len(got) != look.size:
                return -1, True
        except FileNotFoundError:
            return -1, True
        with open(self._truth, "rb") as truth:
            truth.seek(offset)
            return len(got) if truth.read(len(got)) == got else -1, whole

    def diagnose(self, names: list[str]) -> Diagnosis | None:
        """What is wrong with these files."""
        got = b"".join(held(self.directory / name)[0] for name in names)
        return diagnose(self._truth.read_bytes(), got)
