# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered of a file, and whether a file is the one that is remembered: pure.

A life is one file from its first byte to its last, whatever it is called meanwhile. Its id is random, so that an inode
that the file system hands out again is never taken for the same file. Device and inode find a life quickly; what proves
it is content: the first bytes, and the 64 bytes before the offset. The latter are different in two files of the same
program even where both begin with the same banner.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

HEAD_MAX = 1024
TAIL_MAX = 64

Key = tuple[int, int]
"""Device and inode."""

NO_FILE: Key = (0, 0)


def digest(data: bytes) -> str:
    """16 bytes of blake2b in hex, as in wire.Span.head_hash."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


EMPTY = digest(b"")


@dataclass
class Record:
    """One life of one source, as it is saved: offset is where the next unacknowledged byte is.

    The head is at most 1024 bytes, and at least as many of the first block as there are, even before that has been
    acknowledged. tail_hash covers the min(64, offset) bytes before the offset. An empty tail_hash
    means that the file was to be begun at its end and has not been looked into yet. where is the path the file was last
    seen under, mtime its time of change then (ns), codec how it is compressed, if it is, seen when it was there for
    sure (seconds, roughly). skip_nuls: it was truncated under a writer that may go on at its old offset, which leaves
    at least nuls NULs before that: fewer are the application's own. What is before since was published elsewhere, as
    before the host moved to another partition. extra holds what another version of the program has put there.
    """

    source: bytes
    where: bytes
    device: int
    inode: int
    mtime: int
    life: str = field(default_factory=lambda: secrets.token_hex(16))
    offset: int = 0
    head_length: int = 0
    head_hash: str = EMPTY
    tail_hash: str = EMPTY
    codec: str = ""
    finished: bool = False
    skip_nuls: bool = False
    nuls: int = 0
    since: int = 0
    seen: int = field(default_factory=lambda: int(time.time()))
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return (self.device, self.inode)

    @property
    def tail_length(self) -> int:
        return min(TAIL_MAX, self.offset)

    def advance(self, offset: int, head: bytes, tail: bytes) -> None:
        """Move to offset; head are the file's first bytes, tail those before the offset, both as far as they go."""
        self.offset = offset
        self.head_length = len(head)
        self.head_hash = digest(head)
        self.tail_hash = digest(tail)


def agrees(record: Record, head: bytes, tail: bytes) -> bool:
    """Whether a file that holds these bytes at its begin and before the offset is the one that is remembered.

    head and tail are what a read of head_length and tail_length bytes gave: shorter than asked, the file is shorter.
    """
    return (
        len(head) == record.head_length
        and len(tail) == record.tail_length
        and record.tail_hash in ("", digest(tail))
        and digest(head) == record.head_hash
    )
