# SPDX-License-Identifier: GPL-3.0-or-later
"""Files as the tailer reads them, plain and compressed, and the rotated names beside a path."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import logging
import lzma
import os
import stat
import time
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, BinaryIO, NamedTuple, Union, cast

from .errors import printable
from .identity import Key, Record, agrees
from .rotation import Rotated, renamed, rotated

logger = logging.getLogger(__name__)

NOT_THERE = "it does not exist yet"
_SECOND_NS = 1_000_000_000
# A folder that was changed less than this before it was listed may change again without another time stamp.
_RACY_NS = 1_000_000_000
_LOOKS_MOST = 10
_CHUNK = 256 * 1024
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, OSError)


def show(path: bytes) -> str:
    """A path on one line of a log."""
    return printable(os.fsdecode(path))


def reason(error: OSError) -> str:
    """Why a path is waited for."""
    return NOT_THERE if error.errno in (errno.ENOENT, errno.ENOTDIR) else (error.strerror or str(error)).lower()


class PlainFile:
    """A regular file, open for reading. Raises OSError where it cannot be, or is not a regular file."""

    whole = False

    def __init__(self, path: bytes) -> None:
        # Not blocking: a FIFO may have taken the file's place since it was looked at.
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        if not stat.S_ISREG(self.stat().st_mode):
            self.close()
            raise OSError(errno.EINVAL, "not a regular file")

    def stat(self) -> os.stat_result:
        return os.fstat(self._fd)

    def read(self, offset: int, length: int) -> bytes:
        """What is there of these bytes, by one pread: fewer only at the end of the file."""
        return os.pread(self._fd, length, offset)

    def data_from(self, offset: int) -> int:
        """Where the first bytes at or behind offset may be that are not a hole; offset itself if there are none."""
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError:
            return offset

    def close(self) -> None:
        os.close(self._fd)


class CompressedFile:
    """A compressed file, read forward as the bytes that were compressed; reading further back begins it again.

    Nothing is appended to it any more. What is damaged or cut off ends it, and is said.
    """

    whole = True

    def __init__(self, path: bytes, codec: str) -> None:
        opener = _OPENERS.get(codec)
        if opener is None:
            raise OSError(errno.ENOTSUP, "compressed with %s, which cannot be read" % codec)
        self._path = path
        self._opener = opener
        self._raw = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY), "rb")  # noqa: SIM115
        self._begin()

    def _begin(self) -> None:
        self._raw.seek(0)
        self._stream = self._opener(self._raw)
        self._base = 0
        self._window = b""
        self._ended = False

    def stat(self) -> os.stat_result:
        return os.fstat(self._raw.fileno())

    def read(self, offset: int, length: int) -> bytes:
        """What is there of these bytes: fewer only at the end."""
        if offset < self._base:
            self._begin()
        while not self._ended and self._base + len(self._window) < offset + length:
            self._window = self._window[max(0, offset - self._base) :] + self._more(offset)
        return self._window[offset - self._base : offset - self._base + length]

    def _more(self, offset: int) -> bytes:
        self._base += min(len(self._window), max(0, offset - self._base))
        try:
            chunk = self._stream.read(_CHUNK)
        except _DAMAGED as error:
            logger.warning("Damaged %s: what follows cannot be read: %s", show(self._path), error)
            chunk = b""
        self._ended = chunk == b""
        return chunk

    def data_from(self, offset: int) -> int:
        return offset

    def close(self) -> None:
        with contextlib.suppress(*_DAMAGED):
            self._stream.close()
        self._raw.close()


_OPENERS: dict[str, Callable[..., BinaryIO]] = cast(Any, {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open})
READABLE = ("", *_OPENERS)

AnyFile = Union[PlainFile, CompressedFile]


@dataclass(frozen=True)
class Sibling:
    """A regular file beside a path, as stat saw it; rotated tells how its name comes from the path's, rising that of
    such names with an index the highest is the newest."""

    path: bytes
    key: Key
    size: int
    mtime: int
    rotated: Rotated | None = None
    rising: bool = False

    @property
    def identity(self) -> tuple[Key, int, int]:
        """Stays the same while nothing is written: an inode that was given to another file has another one."""
        return (self.key, self.mtime, self.size)

    @property
    def codec(self) -> str:
        return self.rotated.codec if self.rotated else ""

    @property
    def sure(self) -> bool:
        return self.rotated is not None and self.rotated.sure

    def is_at(self, path: bytes) -> bool:
        """Whether the same file is at path, too."""
        found = look(path)
        return found is not None and found.key == self.key

    def open(self) -> AnyFile:
        return open_file(self.path, self.codec)

    def made_like(self, other: Sibling) -> bool:
        """Whether both names were made in the same way from the path's."""
        return self.rotated is not None and other.rotated is not None and self.rotated.shape == other.rotated.shape

    def newer_than(self, other: Sibling) -> bool:
        if self.rotated and other.rotated and self.rotated.shape == other.rotated.shape:
            return self.age > other.age
        return self.mtime > other.mtime

    @property
    def age(self) -> tuple[int, ...]:
        """Sorts names of one shape, oldest first."""
        if self.rotated is None:
            return ()
        falling = self.rotated.indexed and not self.rising
        return tuple(-number for number in self.rotated.numbers) if falling else self.rotated.numbers


def open_file(path: bytes, codec: str) -> AnyFile:
    return CompressedFile(path, codec) if codec else PlainFile(path)


def look(path: bytes, how: Rotated | None = None) -> Sibling | None:
    """The regular file at path, or None."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return Sibling(path, (found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns, how)


class _Listing(NamedTuple):
    changed: int
    settled: bool
    names: list[bytes]
    folders: list[tuple[bytes, bool]]
    """Those that are not hidden, and whether each is a link: to what, only looking behind it tells."""


_EMPTY = _Listing(0, False, [], [])


class Folders:
    """The names in folders, listed again only where the folder has changed; generation counts the listings, and what
    has come, gone or been replaced at paths that were asked for by there()."""

    def __init__(self) -> None:
        self.generation = 0
        self._known: dict[bytes, _Listing] = {}
        self._there: dict[bytes, tuple[int, int, int]] = {}

    def names(self, folder: bytes) -> list[bytes]:
        """The sorted names in folder; none where it cannot be read."""
        return self._listing(folder).names

    def below(self, start: bytes) -> list[bytes]:
        """A folder and all that are below it, but for hidden ones and what is behind links to folders."""
        found, waiting = [], [(start, False)]
        while waiting:
            folder, link = waiting.pop()
            found.append(folder)
            if not link:
                inner = self._listing(folder).folders
                waiting.extend((os.path.join(folder, name), is_link) for name, is_link in reversed(inner))
        return found

    def there(self, path: bytes) -> bool:
        """Whether there is anything at path, of whatever kind."""
        try:
            found = os.lstat(path)
        except OSError:
            if self._there.pop(path, None):
                self.generation += 1
            return False
        what = (found.st_dev, found.st_ino, stat.S_IFMT(found.st_mode))
        if self._there.get(path) != what:
            self.generation += 1
            self._there[path] = what
        return True

    def paths(self) -> Iterator[bytes]:
        """All paths that were seen, and those beside them, though some may not be there any more."""
        for folder in {os.path.dirname(path) for path in self._there}:
            self.names(folder)
        for folder, listing in self._known.items():
            for name in listing.names:
                yield os.path.join(folder, name)
        yield from self._there

    def forget(self) -> None:
        """Look at everything anew, so that what nobody asks for any more takes no room."""
        self._known.clear()
        self._there.clear()

    def _listing(self, folder: bytes) -> _Listing:
        known = self._known.get(folder)
        try:
            changed = os.stat(folder).st_mtime_ns
            if known and known.changed == changed and known.settled:
                return known
            with os.scandir(folder) as entries:
                found = sorted((each.name, each.is_symlink(), each.is_dir(follow_symlinks=False)) for each in entries)
        except OSError:
            if self._known.pop(folder, None):
                self.generation += 1
            return _EMPTY
        self.generation += 1
        settled = time.time_ns() - changed > _RACY_NS
        inner = [(name, link) for name, link, is_folder in found if (link or is_folder) and name[:1] != b"."]
        listing = _Listing(changed, settled, [name for name, link, is_folder in found], inner)
        self._known[folder] = listing
        return listing

    def snapshot(self, path: bytes) -> tuple[Sibling | None, list[Sibling]]:
        """The file at path, and those that may come from rotating it or what it links to.

        Not among them are the file at path itself, under whatever name, and a compressed one that is also there
        uncompressed. Renames may be going on: it is looked at until two looks agree, so that no file is missed.
        """
        seen = self._look_around(path)
        for _turn in range(_LOOKS_MOST):
            before, seen = seen, self._look_around(path)
            if [(sibling.path, sibling.key) for sibling in before] == [(sibling.path, sibling.key) for sibling in seen]:
                break
        own = next((sibling for sibling in seen if sibling.rotated is None), None)
        plain = {sibling.path for sibling in seen if not sibling.codec}
        family = {
            sibling.key: sibling
            for sibling in seen
            if sibling.rotated is not None
            and (own is None or sibling.key != own.key)
            and not (sibling.codec and os.path.join(os.path.dirname(sibling.path), sibling.rotated.stem) in plain)
        }
        return own, list(family.values())

    def _look_around(self, path: bytes) -> list[Sibling]:
        bases = {path: None}
        with contextlib.suppress(OSError):
            bases[os.path.realpath(path)] = None
        seen = [look(path)]
        for base in bases:
            folder, name = os.path.split(base)
            for candidate, how in self._rotated(folder, name):
                if os.path.join(folder, candidate) not in bases:
                    seen.append(look(os.path.join(folder, candidate), how))
        return [sibling for sibling in seen if sibling is not None]

    def _rotated(self, folder: bytes, base: bytes) -> Iterator[tuple[bytes, Rotated]]:
        names = self.names(folder)
        prefix = base.rpartition(b".")[0] or base
        for name in names[bisect_left(names, prefix) :]:
            if not name.startswith(prefix):
                return
            how = rotated(base, name)
            if how is not None:
                yield name, how

    def with_key(self, path: bytes, key: Key) -> Sibling | None:
        """The file of this device and inode beside path, whatever its name.

        Renames may be going on: that it is not there counts only once two looks agree about who is.
        """
        folder, base = os.path.split(path)
        before: list[tuple[bytes, Key]] | None = None
        for _turn in range(_LOOKS_MOST):
            seen = []
            for name in self.names(folder):
                sibling = look(os.path.join(folder, name), rotated(base, name) or renamed(name))
                if sibling is not None and sibling.key == key:
                    return sibling
                if sibling is not None:
                    seen.append((name, sibling.key))
            if seen == before:
                break
            before = seen
        return None


def oldest_first(siblings: Iterable[Sibling], read: Callable[[Sibling], int] | None = None) -> list[Sibling]:
    """By name where all names are made alike (compressing may have changed the times), otherwise by time. read gives a
    file's time of change when it was read, if it is known: a late writer may have changed it since.
    """
    found = list(siblings)
    indexed = [each for each in found if each.rotated and each.rotated.indexed]
    if _rise(indexed, attrgetter("mtime")) and (read is None or _rise(indexed, read)):
        found = [replace(each, rising=True) for each in found]
    if len({sibling.rotated.shape for sibling in found if sibling.rotated}) == 1:
        return sorted(found, key=lambda sibling: sibling.age)
    return sorted(found, key=lambda sibling: (sibling.mtime, sibling.age))


def _rise(indexed: list[Sibling], time_of: Callable[[Sibling], int]) -> bool:
    """Whether the times of all files say that those with higher numbers are newer. Those of compressed ones count where
    there are not two others, and only if they lie apart: they may have been compressed in one go. One that is not
    compressed is the newest."""
    plain = [sibling for sibling in indexed if not sibling.codec]
    telling, apart = (plain, 1) if len(plain) > 1 else (indexed, _SECOND_NS)
    by_number = sorted(telling, key=lambda sibling: sibling.rotated.numbers if sibling.rotated else ())
    times = [time_of(sibling) for sibling in by_number]
    if len(plain) == 1 and by_number[-1] not in plain:
        return False
    return len(times) > 1 and all(later - earlier >= apart for earlier, later in zip(times, times[1:]))


def holds(record: Record, file: AnyFile) -> bool:
    """Whether file is, byte for byte as far as is remembered, the one of the record."""
    head = file.read(0, record.head_length)
    tail = file.read(record.offset - record.tail_length, record.tail_length)
    return agrees(record, head, tail)


def find_copy(record: Record, candidates: list[Sibling]) -> tuple[Sibling, AnyFile] | None:
    """The first candidate that holds what was read of the record's file, opened: of several files that begin alike, the
    oldest that is not older than what was read.
    """
    if record.head_length == 0 or not record.tail_hash:
        return None
    for sibling in candidates:
        # bzip2 and others keep times to the second only.
        seen = record.mtime if sibling.mtime % _SECOND_NS else record.mtime - record.mtime % _SECOND_NS
        # Not by its size: it may have been a copy in the making when that was looked at.
        if sibling.mtime < seen:
            continue
        try:
            file = sibling.open()
        except OSError as error:
            logger.warning("Cannot look into %s for the rest of %s: %s", show(sibling.path), show(record.source), error)
            continue
        if holds(record, file):
            return sibling, file
        file.close()
    return None
