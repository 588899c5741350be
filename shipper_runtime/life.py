# SPDX-License-Identifier: GPL-3.0-or-later
"""One file from its first byte to its last: opened, checked and read at its offset."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import OrderedDict
from dataclasses import dataclass

from .blocks import Cut, cut
from .identity import HEAD_MAX, NO_FILE, TAIL_MAX, Key, Record, digest
from .siblings import READABLE, AnyFile, PlainFile, Sibling, holds, open_file, show

logger = logging.getLogger(__name__)

QUIET = 1.0
RELEASE = 60.0
"""The descriptor of a finished or deleted file is kept for so long after its last byte."""
_LOOK_BACK = 1024 * 1024
_NUL_CHUNK = 1024 * 1024
_NUL_CHUNKS = 64
_AGAIN = 2 * TAIL_MAX


class Replaced(Exception):
    """The file at hand does not hold, any more, what was read of this life: truncated, or not the same file."""


class Descriptors:
    """Lives with an open file, the least recently used first; beyond the budget those are closed."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._open: OrderedDict[Life, None] = OrderedDict()

    def used(self, life: Life) -> None:
        self._open[life] = None
        self._open.move_to_end(life)
        while len(self._open) > self._budget:
            next(iter(self._open)).close()

    def closed(self, life: Life) -> None:
        self._open.pop(life, None)

    def close(self) -> None:
        for life in list(self._open):
            life.close()


@dataclass(frozen=True)
class Reading:
    """A block's bytes with what the record will be once they are acknowledged."""

    cut: Cut
    head: bytes
    tail: bytes
    mtime: int


class Life:
    """A record with its file. head holds the first bytes as far as they have been seen.

    fresh: nothing of it has been read yet, so nothing proves that the file at the path is still the one that was found.
    grown_at: when it was last seen to be longer than before; held: bytes seen behind the offset; size: the largest that
    the open file was seen to have.
    ended: its last read came to the end of the file; ended_at: when it first did after a successor had data; failed_at:
    since when it cannot be opened; made: the sibling that was made of it; look_at and look_pause: when to listen for
    late bytes once it is finished; missed_at: at which look into all folders its file was missed, see Shared.
    """

    def __init__(self, record: Record, descriptors: Descriptors, now: float) -> None:
        self.record = record
        self.file: AnyFile | None = None
        self.head = b""
        self.fresh = record.head_length == 0 or record.skip_nuls
        self.grown_at = now
        self.held = 0
        self.size = 0
        self._nuls = 0
        self.ended = False
        self.ended_at: float | None = None
        self.failed_at: float | None = None
        self.look_at = now
        self.look_pause = 0.0
        self.made: tuple[Key, int, int] | None = None
        self.missed_at: int | None = None
        self._descriptors = descriptors

    @property
    def key(self) -> Key:
        return self.record.key

    def open(self) -> None:
        """Open the file where it was last seen. Raises OSError, and Replaced if another one is there."""
        if self.file is None:
            if self.record.codec not in READABLE:
                raise Replaced
            # Not by a link, which may point elsewhere when the file is looked for again.
            where = os.path.realpath(self.record.where)
            file = open_file(where, self.record.codec)
            found = file.stat()
            if (found.st_dev, found.st_ino) != self.key:
                file.close()
                raise Replaced
            self._take(file, checked=False)
            self.record.where = where
        self._descriptors.used(self)

    def move(self, sibling: Sibling, file: AnyFile | None = None) -> None:
        """Go on in another file that holds the same bytes, or under another name of the same file."""
        self.close()
        self.ended = False
        self.missed_at = None
        self.record.where = sibling.path
        self.record.device, self.record.inode = sibling.key
        self.record.codec = sibling.codec
        if file is not None:
            self._take(file, checked=True)
            self._descriptors.used(self)

    def _take(self, file: AnyFile, checked: bool) -> None:
        record = self.record
        try:
            if record.offset and not record.tail_hash:
                self._align(file)
            elif not (checked or holds(record, file)):
                raise Replaced
            self.head = file.read(0, record.head_length)
        except BaseException:
            file.close()
            raise
        self.file = file
        self.size = 0
        self.missed_at = None

    def _align(self, file: AnyFile) -> None:
        """Begin behind the last newline before where the end was, or where it was if the line is too long to tell."""
        end = min(self.record.offset, file.stat().st_size)
        begin = max(0, end - _LOOK_BACK)
        newline = file.read(begin, end - begin).rfind(b"\n")
        if newline >= 0:
            end = begin + newline + 1
        elif begin == 0:
            end = 0
        self._jump(file, end)

    def _jump(self, file: AnyFile, offset: int) -> None:
        tail = min(TAIL_MAX, offset)
        self.record.advance(offset, file.read(0, min(HEAD_MAX, offset)), file.read(offset - tail, tail))

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None
        self._descriptors.closed(self)

    def vanish(self) -> None:
        """Its file does not exist any more: the inode may be given to another one."""
        self.close()
        self.record.device, self.record.inode = NO_FILE

    @property
    def unknown(self) -> bool:
        """Whether nothing but device and inode tells which file it is, because it was empty when it was last seen."""
        return not self.record.head_length

    @property
    def gone(self) -> bool:
        return self.key == NO_FILE

    def is_file(self, sibling: Sibling) -> bool:
        """Whether the file with this life's device and inode is still this life's."""
        if self.key != sibling.key:
            return False
        if self.file is not None:
            return True
        # Nothing is compressed in place: a file with another codec has only been given the inode.
        if sibling.rotated is not None and sibling.codec != self.record.codec:
            return False
        if self.record.mtime == sibling.mtime:
            return True
        if self.unknown and self.record.finished:
            return False
        with contextlib.suppress(OSError), contextlib.closing(open_file(sibling.path, self.record.codec)) as file:
            return holds(self.record, file)
        return True

    def has_data(self) -> bool:
        """Whether there is, or was, anything in the file; what cannot be told counts as yes."""
        if self.record.head_length:
            return True
        with contextlib.suppress(OSError):
            return (self.file.stat() if self.file else os.stat(self.record.where)).st_size > 0
        return True

    def behind(self) -> int:
        """How many bytes there are behind the offset and were not held back; 0 where that cannot be told."""
        if self.record.codec:
            return 0
        with contextlib.suppress(OSError):
            size = (self.file.stat() if self.file else os.stat(self.record.where)).st_size
            return max(0, size - self.record.offset - self.held)
        return 0

    def deleted(self) -> bool:
        """Whether the open file has no name any more."""
        return self.file is not None and self.file.stat().st_nlink == 0

    def released(self, now: float) -> bool:
        """Whether the open file was deleted and nothing has come for so long that nobody writes to it any more."""
        return now - self.grown_at >= RELEASE and self.deleted()

    def intact(self) -> bool:
        """Whether the open file, as far as it has been read, is still what it was. Raises OSError."""
        record = self.record
        return (
            self.file is None
            or self.file.whole
            or (
                not self.shrunk()
                and digest(self.file.read(record.offset - record.tail_length, record.tail_length)) == record.tail_hash
                and self.file.read(0, len(self.head)) == self.head
            )
        )

    def shrunk(self) -> bool:
        """Whether the open file is shorter than it once was, though it may have grown again. Raises OSError."""
        return self.file is not None and self._is_shorter(self.file, self.file.stat().st_size)

    def _is_shorter(self, file: AnyFile, size: int) -> bool:
        if file.whole:
            return False
        self.size = max(self.size, self.record.offset, self.record.head_length, size)
        return size < self.size

    def copied_to(self, sibling: Sibling) -> bool:
        """Whether sibling holds all that is known of this life, and of a finished one no more."""
        record = self.record
        with contextlib.suppress(OSError), contextlib.closing(sibling.open()) as other:
            whole = record.head_length > 0 and holds(record, other)
            return whole and not (record.finished and other.read(record.offset, 1))
        return False

    def shortened_to(self, sibling: Sibling) -> bool:
        """Whether sibling may be a copy that was made before all that has been read was written."""
        record = self.record
        with contextlib.suppress(OSError), contextlib.closing(sibling.open()) as other:
            head = other.read(0, record.head_length)
            whole = len(head) == record.head_length and digest(head) == record.head_hash
            return head != b"" and (whole or self.head.startswith(head)) and not other.read(record.offset - 1, 1)
        return False

    def begins_with(self, sibling: Sibling) -> bool:
        """Whether sibling is some first part of the open file: a copy that is being made."""
        size = sibling.size
        tail = max(0, size - TAIL_MAX)
        with contextlib.suppress(OSError):
            if isinstance(self.file, PlainFile) and not sibling.codec and self.intact():
                with contextlib.closing(sibling.open()) as other:
                    return other.read(0, min(HEAD_MAX, size)) == self.file.read(0, min(HEAD_MAX, size)) and (
                        other.read(tail, size - tail) == self.file.read(tail, size - tail)
                    )
        return False

    def cut(self, limit: int, hard_limit: int, now: float, succeeded: bool = False) -> Reading | None:
        """The next block's bytes, or None. The file is open. Raises OSError and Replaced.

        A last line without newline is taken once nothing came for QUIET and the file was succeeded by another one, or
        for RELEASE and it was deleted.

        The bytes before the offset are checked and those behind it read in one go: a file that is truncated and grows
        again between a check and a read would give a block mixed from two lives.
        """
        file, record = self.file, self.record
        assert file is not None
        found = file.stat()
        if self._is_shorter(file, found.st_size):
            raise Replaced
        if record.skip_nuls and not self._skip_nuls(file):
            return None
        before = record.tail_length
        start = record.offset - before
        data = file.read(start, before + limit)
        self.ended = len(data) < before + limit
        if not self.ended and data.find(b"\n", before) < 0:
            data = file.read(start, before + hard_limit + 1)
            self.ended = len(data) <= before + hard_limit
        known = self.head[record.offset :]
        again = data[before : before + len(known)]
        shorter = self.ended and len(again) < len(known)
        if digest(data[:before]) != record.tail_hash or shorter or not known.startswith(again):
            raise Replaced
        # A read takes page after page, and the file may have been truncated in the middle of it. The head tells more
        # than the bytes before the offset where a program says the same again and again.
        steady = file.whole or file.read(start, _AGAIN).startswith(data[:_AGAIN])
        if not steady or (not file.whole and file.read(0, len(self.head)) != self.head):
            raise Replaced
        available = len(data) - before
        if available > self.held:
            self.grown_at = now
        patience = (
            QUIET if succeeded and not file.whole else 0.0 if succeeded else RELEASE if not found.st_nlink else None
        )
        finished = patience is not None and available == self.held and now - self.grown_at >= patience
        taken = cut(data, before, limit, hard_limit, finished)
        self.held = available
        if taken is None:
            return None
        end = before + taken.length
        head = self.head[: record.offset]
        if len(head) < HEAD_MAX:
            head += data[before : min(end, before + HEAD_MAX - len(head))]
        return Reading(taken, head, data[max(0, end - TAIL_MAX) : end], found.st_mtime_ns)

    def learn_head(self) -> None:
        """Look at the first bytes if none is known yet, so that a copy of the file can be told."""
        if self.file is not None and not self.record.head_length:
            self.know_by(self.file.read(0, HEAD_MAX))

    def know_by(self, head: bytes) -> None:
        """From now on these first bytes are part of what the life is known by."""
        if len(head) > len(self.head):
            self.head = head
        self.record.head_length = len(self.head)
        self.record.head_hash = digest(self.head)

    def advance(self, reading: Reading) -> None:
        """What was read has been acknowledged."""
        self.held -= reading.cut.length
        self.record.mtime = max(self.record.mtime, reading.mtime)
        self.record.advance(self.record.offset + reading.cut.length, self.head, reading.tail)

    def _skip_nuls(self, file: AnyFile) -> bool:
        """Move to the first byte that is not NUL, if there are as many as there must be; False if none has come yet."""
        position = max(self.record.offset, self._nuls)
        rest = b""
        for _turn in range(_NUL_CHUNKS):
            position = file.data_from(position)
            chunk = file.read(position, _NUL_CHUNK)
            rest = chunk.lstrip(b"\0")
            position += len(chunk) - len(rest)
            if rest or not chunk:
                break
        self._nuls = position
        if position < self.record.nuls:
            self.record.skip_nuls = rest == b""
            return rest != b""
        if position != self.record.offset:
            self._jump(file, position)
            self.head = file.read(0, self.record.head_length)
        if not rest:
            return False
        self.record.skip_nuls = False
        if position:
            logger.info(
                "Skipped %d NUL bytes at the start of %s: its writer went on at its old offset after a truncation",
                position,
                show(self.record.source),
            )
        return True
