# SPDX-License-Identifier: GPL-3.0-or-later
"""What an archive's file holds, where it has to be compared with what comes: as it is, or packed.

Offsets in a file are where its bytes are on disk, places are where they are in what it holds; without packing they are
the same.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Protocol

from .errors import WireError
from .output import PACKED
from .packing import HEADER, LEAST, MAGIC, unpack

_READ = 1024 * 1024
# A member's end and the next one's header stand together, and of small ones many.
_WALK = 4096
_HELD_SIZE = 4


class Content(Protocol):
    """A file up to the end of what can be made sense of: end is its offset, size its place. torn: what is behind it was
    begun here and never finished."""

    end: int
    size: int
    torn: bool

    def read(self, begin: int, end: int) -> bytes:
        """The bytes between two places."""
        raise NotImplementedError

    def offset(self, place: int) -> int | None:
        """Where the file can be cut so that it ends at this place, if it can."""
        raise NotImplementedError

    def place(self, offset: int) -> int:
        """The place of an offset at which it can be cut."""
        raise NotImplementedError

    def sound(self, offset: int) -> int:
        """The offset, this one or a later one, up to which all that is behind this one is undamaged."""
        raise NotImplementedError


class Raw:
    """Bytes as they are."""

    torn = False

    def __init__(self, fd: int, length: int) -> None:
        self._fd = fd
        self.end = self.size = length

    def read(self, begin: int, end: int) -> bytes:
        return _read(self._fd, begin, end)

    def offset(self, place: int) -> int:
        return place

    def place(self, offset: int) -> int:
        return offset

    def sound(self, offset: int) -> int:
        return self.end


class Members:
    """Members as packing.py makes them, from the file's beginning on."""

    def __init__(self, fd: int, length: int) -> None:
        self._fd = fd
        # Of each member, and then of the end.
        self._offsets = array("Q", [0])
        self._places = array("Q", [0])
        self._last = (-1, b"")
        for size, held in _members(fd, length):
            self._offsets.append(self._offsets[-1] + size)
            self._places.append(self._places[-1] + held)
        self.end, self.size = self._offsets[-1], self._places[-1]
        rest = _read(fd, self.end, min(self.end + len(MAGIC), length))
        self.torn = bool(rest) and (MAGIC.startswith(rest) or not any(rest))

    def read(self, begin: int, end: int) -> bytes:
        pieces = []
        number = bisect_right(self._places, begin) - 1
        while begin < min(end, self.size):
            at = self._places[number]
            piece = self._plain(number)[begin - at : end - at]
            pieces.append(piece)
            begin += len(piece)
            number += 1
        return b"".join(pieces)

    def offset(self, place: int) -> int | None:
        number = bisect_left(self._places, place)
        there = number < len(self._places) and self._places[number] == place
        return self._offsets[number] if there else None

    def place(self, offset: int) -> int:
        return self._places[bisect_right(self._offsets, offset) - 1]

    def sound(self, offset: int) -> int:
        for number in range(bisect_left(self._offsets, offset), len(self._offsets) - 1):
            if self._unpacked(number) is None:
                return self._offsets[number]
        return max(offset, self.end)

    def _plain(self, number: int) -> bytes:
        """What a member holds; NULs where it is damaged."""
        if self._last[0] != number:
            size = self._places[number + 1] - self._places[number]
            self._last = (number, self._unpacked(number) or bytes(size))
        return self._last[1]

    def _unpacked(self, number: int) -> bytes | None:
        data = _read(self._fd, self._offsets[number], self._offsets[number + 1])
        try:
            return unpack(data, self._places[number + 1] - self._places[number])
        except WireError:
            return None


def content(fd: int, path: bytes, length: int, packed: bool) -> Content:
    """Of a file with this name; packed says whether such files are compressed now, for they may not have been."""
    if path.endswith(PACKED):
        head = os.pread(fd, len(MAGIC), 0)
        if packed or (head and MAGIC.startswith(head)):
            return Members(fd, length)
    return Raw(fd, length)


def _members(fd: int, length: int) -> Iterator[tuple[int, int]]:
    """Of each whole member how long it is, and how much it holds."""
    with open(fd, "rb", buffering=_WALK, closefd=False) as file:
        at = file.seek(0)
        while at + LEAST <= length:
            header = file.read(HEADER.size)
            magic, size = HEADER.unpack(header) if len(header) == HEADER.size else (b"", 0)
            if magic != MAGIC or size < LEAST or at + size > length:
                break
            at = file.seek(at + size - _HELD_SIZE) + _HELD_SIZE
            held = file.read(_HELD_SIZE)
            if len(held) < _HELD_SIZE:
                break  # somebody has cut it meanwhile
            yield size, int.from_bytes(held, "little")


def _read(fd: int, begin: int, end: int) -> bytes:
    pieces = []
    while begin < end:
        piece = os.pread(fd, min(_READ, end - begin), begin)
        if not piece:
            break
        pieces.append(piece)
        begin += len(piece)
    return b"".join(pieces)
