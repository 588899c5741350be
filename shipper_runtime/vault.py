# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive's files of one partition, in durable mode: what is committed stays, what is not can be taken back.

A file's committed length is in the ledger. Bytes are written behind it, where ``tail -f`` sees them at once, and count
only once they are synced and the ledger says so; before anything is written again they are cut off. While a file has
uncommitted bytes its lock (flock) is held, so that a partition that takes it over waits for the commit. A file that two
write, for its host publishes to two partitions, is contested: each writes it last and commits at once, so that neither
has the other wait for more than that.

Where files are compressed (packing.py) lengths are of the file, and where it is compared counts what it holds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from .archive import Unwritten
from .confined import Root
from .content import Content, content
from .errors import WireError
from .ledger import FileRow, Ledger
from .packing import Packed, pack
from .syncing import Syncer, sync_folder
from .wire import Payload

logger = logging.getLogger(__name__)

# These concern one file and do not pass: it must not stop the rest. Anything else may pass: wait.
_GIVE_UP = {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO}
# How far back from a file's end a message's bytes are looked for, and by how many of its first bytes.
_LOOK_BACK = 64 * 1024 * 1024
_KNOWN_BY = 64
_PLACES_MOST = 10_000
# By so much of what comes it is found in a file.
_ENOUGH = 8 * 1024 * 1024
IDLE_CLOSED_AFTER = 60.0
CONTESTED_SECONDS = 60.0
_CONTESTED_MOST = 10_000
# A file that was last changed so long before a message came to the broker does not hold it; clocks differ.
_CLOCKS_NS = 60 * 10**9
# What is written as it came. A copy costs less than a call for what is smaller.
_LARGE = 64 * 1024


class _File:
    __slots__ = (
        *("chunks", "content", "end", "fd", "gaps", "held", "host", "length", "matched"),
        *("name", "path", "period", "since", "stamp", "used"),
    )

    def __init__(self, host: str, name: bytes, period: int) -> None:
        self.host = host
        self.name = name
        self.path = host.encode("ascii") + b"/" + name
        self.period = period
        self.chunks: list[Payload | Packed] = []
        # Before which of them bytes of their source are missing, and how many.
        self.gaps: dict[int, int] = {}
        self.stamp = 0
        self.fd = -1
        # Whether its lock is held, and so length is what the ledger has and end is where the next byte goes.
        self.held = False
        self.length = 0
        self.end = 0
        # From where in content what comes is compared with it.
        self.matched: int | None = None
        self.since: int | None = None
        self.content: Content | None = None
        self.used = 0.0


class Left(NamedTuple):
    """A file that was left out of a flush, by its path below the archive's root, and its whole path as it is shown."""

    path: bytes
    shown: str


class Contested:
    """The paths of files that another partition was seen to write too, for so long as that goes on."""

    def __init__(self) -> None:
        self._seen: dict[bytes, float] = {}

    def __contains__(self, path: bytes) -> bool:
        return path in self._seen

    def add(self, path: bytes) -> None:
        if len(self._seen) >= _CONTESTED_MOST:
            self._seen.clear()
        self._seen[path] = time.monotonic()

    def forget_old(self, now: float) -> None:
        """Those for which nobody had to wait for long."""
        for path in [path for path, seen in self._seen.items() if now - seen >= CONTESTED_SECONDS]:
            del self._seen[path]


class Vault:
    """One partition's files. unwritten(host, path, bytes, error) is told of what cannot be written for good. compress
    is zlib's level for what does not come packed, or None where files hold it as it is; then nothing may come packed.

    append() gathers, flush() writes, sync() makes it last; then rows() is what the ledger is to commit, and settle()
    says that it has. Only sync() and tails() may be called from another thread.

    flush() leaves out files that are contested: with write_contested() they come last. contested has their paths; it
    may be given on to the partition's next vault.
    """

    def __init__(
        self,
        root: Root,
        ledger: Ledger,
        stream: str,
        unwritten: Unwritten,
        descriptors: int,
        compress: int | None = None,
        contested: Contested | None = None,
    ) -> None:
        self.uncommitted = 0
        self.contested = Contested() if contested is None else contested
        self._root = root
        self._ledger = ledger
        self._stream = stream
        self._unwritten = unwritten
        self._descriptors = descriptors
        self._compress = compress
        self._syncer: Syncer | None = None
        self._files: dict[bytes, _File] = {}
        # Those of them that are open, the one that was used longest ago first.
        self._open: OrderedDict[bytes, _File] = OrderedDict()
        self._waiting: dict[bytes, _File] = {}
        self._touched: dict[bytes, _File] = {}
        self._folders: set[bytes] = set()
        self._looked_at = 0.0

    @property
    def crowded(self) -> bool:
        """Whether so many files have uncommitted bytes that a commit is due."""
        return len(self._touched) + len(self._waiting) >= self._descriptors

    def append(self, host: str, name: bytes, period: int, stamp: int, data: Payload | Packed, missing: int = 0) -> None:
        """Have data of a message of this time (ns) appended to a host's file at the next flush; see output.py. Where
        the file has one source, so many bytes of it are missing before data; the file may have them all the same."""
        path = host.encode("ascii") + b"/" + name
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = _File(host, name, period)
        if not file.chunks:
            file.stamp = stamp
            self._waiting[path] = file
        if missing:
            file.gaps[len(file.chunks)] = missing
        file.chunks.append(data)
        file.used = time.monotonic()
        self.uncommitted += len(data)

    def flush(self) -> None:
        """Write what was gathered, but of files that are contested. Raises OSError where that may go better later; then
        take_back()."""
        self._write_all([file for file in self._waiting.values() if file.held or file.path not in self.contested])

    def left(self) -> list[Left]:
        """What flush() has left out: in one order for all partitions, so that no two wait for each other."""
        return sorted(Left(file.path, self._root.shown(file.host, file.name)) for file in self._waiting.values())

    def write_contested(self, left: Left) -> int | None:
        """Write what was gathered for it, or have the descriptor of the file that another partition has locked at
        present. Raises OSError like flush()."""
        file = self._waiting[left.path]
        self._write_all([file])
        return file.fd if left.path in self._waiting else None

    def contest_all(self) -> None:
        """From now on have no file before the contested ones."""
        for path in self._touched:
            self.contested.add(path)

    def _write_all(self, files: list[_File]) -> None:
        if self._syncer is None:
            self._syncer = Syncer(self._root.directory)
        ready, fresh = [], []
        for file in files:
            if not file.held:
                try:
                    row = self._take(file)
                except BlockingIOError:
                    self.contested.add(file.path)
                    continue
                except OSError as error:
                    if error.errno not in _GIVE_UP:
                        error.filename = self._root.path(file.host, file.name)
                        raise
                    self._give_up(file, error)
                    continue
                if row is not None:
                    fresh.append(row)
            ready.append(file)
        if fresh:
            self._ledger.enter(self._stream, fresh)
        for file in ready:
            self._write(file)
            del self._waiting[file.path]

    def sync(self) -> None:
        """On return all that was flushed is on disk, and can be found there. Raises OSError; then it must not be tried
        again, for the system may have dropped what it could not write: close(), and begin again with cut_back()."""
        descriptors = [file.fd for file in self._touched.values() if file.end != file.length]
        if self._syncer is not None:
            self._syncer.sync(descriptors, self._folders)

    def rows(self) -> list[FileRow]:
        """What of the files is to be committed."""
        return [FileRow(file.path, file.end, file.period, file.matched, file.since) for file in self._touched.values()]

    def settle(self) -> None:
        """It is committed: let others have the files."""
        for file in self._touched.values():
            file.length = file.end
            file.held = False
            file.content = None
            fcntl.flock(file.fd, fcntl.LOCK_UN)
        self._touched.clear()
        self._folders.clear()
        self.uncommitted = 0

    def take_back(self) -> None:
        """Cut off what is not committed, as far as that goes, so that no torn line stays while there is no room."""
        for file in self._touched.values():
            if file.end > file.length:
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fd, file.length)

    def close_idle(self, now: float) -> None:
        """Close what was not written for a minute: an expired file frees its room only when nobody has it open."""
        if now - self._looked_at >= 1.0:
            self._looked_at = now
            self.contested.forget_old(now)
            for file in [file for file in self._files.values() if now - file.used >= IDLE_CLOSED_AFTER]:
                if not file.held and not file.chunks:
                    self._close(file)

    def close(self) -> None:
        """Let go of all files. Of what is not committed nothing is known any more."""
        for file in self._files.values():
            self._close_descriptor(file)
        self._files.clear()
        self._open.clear()
        if self._syncer is not None:
            self._syncer.close()
            self._syncer = None
        self._waiting.clear()
        self._touched.clear()
        self._folders.clear()
        self.uncommitted = 0

    def cut_back(self) -> None:
        """Cut every file of the partition to its committed length: the stream has the rest. Raises OSError."""
        for row, fd in self._longer():
            os.ftruncate(fd, row.length)

    def tails(self) -> list[FileRow]:
        """The partition's files that hold more than is committed: what they hold is kept, to be compared with. It is
        on disk on return. Raises OSError."""
        kept = []
        for row, fd in self._longer():
            size = os.fstat(fd).st_size
            there = self._content(fd, row.path, size)
            end = there.sound(row.length)
            if end < size:
                os.ftruncate(fd, end)
            os.fsync(fd)
            if row.length == 0:
                for folder in self._folders_of(row.path):
                    sync_folder(folder)
            matched = there.place(row.length) if row.matched is None else row.matched
            kept.append(FileRow(row.path, end, row.period, matched, row.since))
        return kept

    def _longer(self) -> Iterator[tuple[FileRow, int]]:
        """The partition's files that hold more than is committed, opened and locked. Passed over is what is no file,
        and what another partition takes over at this moment: that one cuts it then."""
        for row in self._ledger.files_of(self._stream):
            host, _slash, name = row.path.partition(b"/")
            try:
                status = self._root.status(host.decode("ascii"), name)
                if not stat.S_ISREG(status.st_mode) or status.st_size <= row.length:
                    continue
                fd = self._root.open_file(host.decode("ascii"), name, os.O_RDWR).fd
            except OSError as error:
                if error.errno in _GIVE_UP or isinstance(error, FileNotFoundError):
                    continue
                raise
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                known = self._ledger.file(row.path)
                if known is not None and known[0] == self._stream and os.fstat(fd).st_size > known[1].length:
                    yield known[1], fd
            except BlockingIOError:
                continue
            finally:
                os.close(fd)

    def _take(self, file: _File) -> FileRow | None:
        """Open and lock a file, and see how much of it is committed; a row if the ledger has to be told first. Raises
        BlockingIOError where another partition has uncommitted bytes in it."""
        if file.fd >= 0 and not self._in_place(file):
            self._close_descriptor(file)
        if file.fd < 0:
            self._make_room()
            file.fd = self._root.open_file(file.host, file.name, os.O_RDWR).fd
            self._open[file.path] = file
        fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.held = True
        self._touched[file.path] = file
        self._open.move_to_end(file.path)
        return self._see(file)

    def _see(self, file: _File) -> FileRow | None:
        status = os.fstat(file.fd)
        size = status.st_size
        known = self._ledger.file(file.path)
        file.content = None
        if known is None:
            matched = None
            size = self._without_torn(file, size) if size else 0
            if size and self._ledger.begun_anew and status.st_mtime_ns + _CLOCKS_NS >= file.stamp:
                # A ledger that was begun anew does not know what of the file came from the stream, nor if it is on
                # disk.
                matched = -1
                os.fdatasync(file.fd)
            row = FileRow(file.path, size, file.period, matched)
        else:
            row = known[1]
            if size < row.length:
                shown = self._root.shown(file.host, file.name)
                logger.warning("%s was cut by somebody, from %d to %d bytes; going on there", shown, row.length, size)
                row = FileRow(row.path, self._without_torn(file, size), row.period, None)
            elif size > row.length:
                os.ftruncate(file.fd, row.length)
        file.length = file.end = row.length
        file.matched, file.since = row.matched, row.since
        if known is None or row.length == 0:
            # Nothing of it is known to be committed, so its folders may not have been synced either, whoever made it.
            self._folders.update(self._folders_of(file.path))
        return None if known == (self._stream, row) else row

    def _without_torn(self, file: _File, size: int) -> int:
        """The file's length without a member that was never finished: nothing could be read behind it."""
        there = self._content(file.fd, file.path, size)
        if there.torn:
            os.ftruncate(file.fd, there.end)
        return there.end if there.torn else size

    def _write(self, file: _File) -> None:
        if file.matched == -1:
            file.matched = file.since = self._find(file, self._beginning(file))
        for piece in _pieces(self._rests(file)):
            view = memoryview(piece)
            while view:
                written = os.pwrite(file.fd, view, file.end)
                file.end += written
                view = view[written:]
            if len(piece) >= _LARGE:
                # The disk begins with it now: it need not all be waited for in the sync. What is being written to disk
                # is not dropped, whatever the name says (Linux, mm/fadvise.c).
                with contextlib.suppress(OSError):
                    os.posix_fadvise(file.fd, file.end - len(piece), len(piece), os.POSIX_FADV_DONTNEED)
        file.chunks.clear()
        file.gaps.clear()

    def _rests(self, file: _File) -> Iterator[Payload]:
        """What of the chunks is not in the file already, as it is written. Unpacked is what has to be compared."""
        for number, chunk in enumerate(file.chunks):
            rest = chunk
            if file.matched is not None:
                plain = _plain(chunk)
                if not plain:
                    shown = self._root.shown(file.host, file.name)
                    self._unwritten(file.host, shown, len(chunk), OSError(errno.EBADMSG, "damaged gzip member"))
                rest = self._compare(file, plain, file.gaps.get(number, 0))
            if isinstance(rest, Packed):
                yield rest.data
            elif rest:
                yield rest if self._compress is None else pack(self._compress, rest)

    def _beginning(self, file: _File) -> bytes:
        """Of the chunks, what they hold: enough of it to find it in the file."""
        found, size = [], 0
        for chunk in file.chunks:
            found.append(_plain(chunk))
            size += len(found[-1])
            if size >= _ENOUGH:
                break
        return b"".join(found)

    def _content(self, fd: int, path: bytes, length: int) -> Content:
        return content(fd, path, length, packed=self._compress is not None)

    def _compared(self, file: _File) -> Content:
        if file.content is None:
            file.content = self._content(file.fd, file.path, file.end)
        return file.content

    def _compare(self, file: _File, data: Payload, missing: int) -> Payload:
        """What of data is not in the file already, behind what was found before."""
        assert file.matched is not None
        compared = self._compared(file)
        there = compared.read(file.matched + missing, min(file.matched + missing + len(data), compared.size))
        if missing and there and file.since is None and data.startswith(there):
            # The broker has lost, and the producer does not send again, what is here.
            file.matched += missing
        there = compared.read(file.matched, min(file.matched + len(data), compared.size))
        if data.startswith(there):
            file.matched += len(there)
            if file.matched == compared.size:
                file.matched = file.since = file.content = None
            return data[len(there) :]
        if file.since is not None:
            # It only looked like it: what was taken for the same stood there before, and has to be written.
            data = compared.read(file.since, file.matched) + data
        return self._end_at_a_line(file, file.matched) + data

    def _find(self, file: _File, data: bytes) -> int | None:
        """Where a line of the file begins from which on it holds data, or to its end a part of it; the last such
        place."""
        compared = self._compared(file)
        begin = max(0, compared.size - _LOOK_BACK)
        held = compared.read(begin, compared.size)
        at = len(held)
        for _turn in range(_PLACES_MOST):
            at = held.rfind(data[:_KNOWN_BY], 0, at + min(len(data), _KNOWN_BY) - 1)
            if at < 0:
                break
            there = held[at : at + len(data)]
            if data.startswith(there) and (begin + at == 0 or held[at - 1 : at] == b"\n"):
                return begin + at
        tail = held[held.rfind(b"\n") + 1 :]
        if tail and data.startswith(tail):
            return compared.size - len(tail)
        file.content = None
        return None

    def _end_at_a_line(self, file: _File, least: int) -> bytes:
        """What follows is something else: no torn line may stand before it, and a crash must leave nothing of what
        follows in its place. What has to be written first: the end of a line where it cannot be cut off."""
        compared = self._compared(file)
        file.matched = file.since = file.content = None
        rest = compared.read(least, compared.size)
        known = self._ledger.file(file.path)
        if not rest or rest.endswith(b"\n") or known is None:
            return b""
        end = compared.offset(least + rest.rfind(b"\n") + 1)
        if end is None:
            return b"\n"
        # From where to compare is the ledger's still: what was compared since is not committed.
        self._ledger.enter(self._stream, [replace(known[1], length=end)])
        os.ftruncate(file.fd, end)
        file.length = file.end = end
        return b""

    def _give_up(self, file: _File, error: OSError) -> None:
        size = sum(map(len, file.chunks))
        self.uncommitted -= size
        self._unwritten(file.host, self._root.shown(file.host, file.name), size, error)
        file.chunks.clear()
        file.gaps.clear()
        self._waiting.pop(file.path, None)
        self._close(file)

    def _in_place(self, file: _File) -> bool:
        """Whether the open file is still the one of its name: it may have been removed or moved away."""
        try:
            there = self._root.status(file.host, file.name)
        except OSError:
            return False
        here = os.fstat(file.fd)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def _make_room(self) -> None:
        for file in list(islice(self._open.values(), max(0, len(self._open) + 1 - self._descriptors))):
            if not file.held and not file.chunks:
                self._close(file)
            elif not file.held:
                self._close_descriptor(file)

    def _folders_of(self, path: bytes) -> list[bytes]:
        folders = [self._root.directory]
        for part in path.split(b"/")[:-1]:
            folders.append(folders[-1] + b"/" + part)
        return folders

    def _close(self, file: _File) -> None:
        self._close_descriptor(file)
        self._files.pop(file.path, None)

    def _close_descriptor(self, file: _File) -> None:
        if file.fd >= 0:
            os.close(file.fd)
            file.fd = -1
            self._open.pop(file.path, None)


def _plain(chunk: Payload | Packed) -> Payload:
    """What a chunk, which is never empty, holds; nothing where it is damaged."""
    try:
        return chunk.plain() if isinstance(chunk, Packed) else chunk
    except WireError:
        return b""


def _pieces(chunks: Iterable[Payload]) -> Iterator[Payload]:
    """The same bytes in fewer pieces: small ones are joined, large ones are not copied."""
    small: list[Payload] = []
    for chunk in chunks:
        if len(chunk) < _LARGE:
            small.append(chunk)
            continue
        if small:
            yield b"".join(small)
            small = []
        yield chunk
    if small:
        yield b"".join(small)
