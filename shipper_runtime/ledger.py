# SPDX-License-Identifier: GPL-3.0-or-later
"""What of an archive is committed: one SQLite file, ``<directory>/.shipper/ledger.db``, shared by a host's workers.

A commit is one transaction, on disk on return (WAL, synchronous=FULL), after the bytes it is about have been synced. So
after any crash the ledger is true of what it says, and nothing is known of what it does not say: bytes behind a file's
length, and messages behind a stream's sequence, are as if they had not been. SQLite's locks do not hold on NFS: the
archive's root must be a local file system.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from .errors import LedgerError, printable

FOLDER = ".shipper"
NAME = "ledger.db"
VERSION = 1
_BUSY_SECONDS = 10.0
_HOLES_MOST = 10_000
# A life that nothing came of for so long is forgotten: nobody re-sends bytes that old.
_LIFE_KEPT_SECONDS = 90 * 86400

_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE streams(
    stream TEXT PRIMARY KEY, created TEXT NOT NULL, sequence INTEGER NOT NULL, stamp INTEGER NOT NULL,
    latest INTEGER NOT NULL, replay_until INTEGER NOT NULL, floors TEXT NOT NULL, committed INTEGER NOT NULL,
    released INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE files(
    path BLOB PRIMARY KEY, stream TEXT NOT NULL, length INTEGER NOT NULL, period INTEGER NOT NULL, matched INTEGER,
    since INTEGER
) WITHOUT ROWID;
CREATE INDEX files_of_stream ON files(stream);
CREATE TABLE lives(
    stream TEXT NOT NULL, host TEXT NOT NULL, life TEXT NOT NULL, next INTEGER NOT NULL, aside BLOB NOT NULL,
    used INTEGER NOT NULL, PRIMARY KEY(stream, host, life)
) WITHOUT ROWID;
CREATE TABLE holes(
    number INTEGER PRIMARY KEY, at INTEGER NOT NULL, stream TEXT NOT NULL, host TEXT NOT NULL, source BLOB NOT NULL,
    life TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL
);
"""


class Position(NamedTuple):
    """How far a stream is committed: the stream's creation time as the broker writes it, the committed message's
    sequence (0: none) and time (ns; 0: not known), the latest time that chose a file (ns), and until which time plain
    messages are old, because the stream's numbers are used a second time (ns; 0: none are)."""

    created: str
    sequence: int = 0
    stamp: int = 0
    latest: int = 0
    replay_until: int = 0


@dataclass(frozen=True)
class FileRow:
    """An archive file: the bytes up to length are committed. Where matched is set, they are not all known to be of
    committed messages: what comes is first compared with those from matched on (-1: from where it is found). Where
    since is set, those from there to matched were found to be the same, but the end of the file is not reached yet."""

    path: bytes
    length: int
    period: int
    matched: int | None = None
    since: int | None = None


@dataclass(frozen=True)
class LifeRow:
    """Which byte of a source's life comes next, and what is kept aside of a line that is not complete."""

    host: str
    life: str
    next: int
    aside: bytes = b""


@dataclass(frozen=True)
class Hole:
    """Bytes [first, last) of a source's life, or with no host messages of the stream, that never came."""

    host: str
    source: bytes
    life: str
    first: int
    last: int


@dataclass
class Commit:
    """What a transaction makes true."""

    position: Position
    files: list[FileRow] = field(default_factory=list)
    lives: list[LifeRow] = field(default_factory=list)
    forgotten: list[tuple[str, str]] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)


class Lost(Exception):
    """A file that was to be committed belongs to another partition by now."""


class Ledger:
    """Raises LedgerError where it cannot be opened or is not one of ours, OSError where the disk has no room.

    Attributes: id, random, minted with the ledger; begun_anew, whether files may be there that it does not know.
    Thread-safe.
    """

    def __init__(self, directory: str) -> None:
        self._root = os.fsencode(os.path.abspath(directory))
        self._folder = os.path.join(os.path.abspath(directory), FOLDER)
        self._path = os.path.join(self._folder, NAME)
        self._lock = threading.Lock()
        self._read_lock = threading.Lock()
        try:
            os.makedirs(self._folder, mode=0o750, exist_ok=True)
            with self._creating():
                self._database = self._open(directory)
            # Who reads does not wait for who commits.
            self._reading = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            if _may_pass(error):
                raise OSError(errno.ENOSPC, str(error)) from None
            raise LedgerError(
                "%s: the ledger cannot be used: %s; it must be on a local disk that this user may write to, or be "
                "restored, or moved away to begin it anew" % (printable(self._path), printable(str(error)))
            ) from None

    @contextlib.contextmanager
    def _creating(self) -> Iterator[None]:
        # Workers that start in the same moment make it once.
        fd = os.open(os.path.join(self._folder, "create.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _open(self, directory: str) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("PRAGMA cache_size=-8192")
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                had_files = any(name != FOLDER for name in os.listdir(directory))
                database.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                values = {"version": VERSION, "id": secrets.token_hex(16), "begun_anew": int(had_files)}
                database.executemany("INSERT INTO meta VALUES (?, ?)", [(k, str(v)) for k, v in values.items()])
                database.execute("COMMIT")
            meta = dict(database.execute("SELECT key, value FROM meta"))
            if meta.get("version") != str(VERSION) or "id" not in meta:
                raise sqlite3.Error("it is of version %s, this program knows %d" % (meta.get("version"), VERSION))
            self.id = str(meta["id"])
            self.begun_anew = meta.get("begun_anew") == "1"
        except BaseException:
            database.close()
            raise
        return database

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                # IMMEDIATE: a transaction that begins as a reader can fail when it comes to write.
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                    self._database.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise OSError(None, "the ledger: %s" % error) from None

    def _rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        with self._read_lock:
            try:
                return self._reading.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise OSError(None, "the ledger: %s" % error) from None

    def position(self, stream: str) -> Position | None:
        """How far a stream is committed, or None where nothing of it was ever read here."""
        query = "SELECT created, sequence, stamp, latest, replay_until FROM streams WHERE stream = ?"
        rows = self._rows(query, stream)
        return Position(*rows[0]) if rows else None  # type: ignore[arg-type]  # SQLite does not tell its types

    def streams(self) -> list[str]:
        """The streams that are this archive's to read."""
        return [str(row[0]) for row in self._rows("SELECT stream FROM streams WHERE NOT released ORDER BY stream")]

    def begin(self, stream: str, position: Position, *, forget_lives: bool) -> None:
        """Read a stream from here. forget_lives: another archive has written what was before."""
        with self._transaction() as database:
            _put_position(database, stream, position, None)
            if forget_lives:
                database.execute("DELETE FROM lives WHERE stream = ?", [stream])

    def begin_epoch(self, stream: str, position: Position, kept: Iterable[FileRow]) -> None:
        """The stream's numbers are used a second time: read it from its first message. kept are files with bytes of
        messages that it may not have any more: what comes is compared with them. One that another partition has taken
        over since it was looked at stays that one's."""
        with self._transaction() as database:
            _put_position(database, stream, position, None)
            rows = database.execute("SELECT floors FROM streams WHERE stream = ?", [stream]).fetchall()
            # Nobody has committed anything of the new numbers, until it shows that it has.
            floors = {group: (0, seen) for group, (_floor, seen) in json.loads(rows[0][0]).items()}
            database.execute("UPDATE streams SET floors = ? WHERE stream = ?", [json.dumps(floors), stream])
            for row in kept:
                _update_file(database, stream, row)

    def doubt(self) -> None:
        """It is an old copy, so files may be there that it does not know."""
        with self._transaction() as database:
            database.execute("UPDATE meta SET value = '1' WHERE key = 'begun_anew'")
        self.begun_anew = True

    def release(self, stream: str) -> None:
        """The stream may be another archive's from now on. What is known of it stays, should none take it."""
        with self._transaction() as database:
            database.execute("UPDATE streams SET released = 1 WHERE stream = ?", [stream])

    def floors(self, stream: str) -> dict[str, tuple[int, int]]:
        """For each group that was ever seen on a stream its last known floor, and when that was (ns)."""
        rows = self._rows("SELECT floors FROM streams WHERE stream = ?", stream)
        return {group: (floor, seen) for group, (floor, seen) in json.loads(str(rows[0][0])).items()} if rows else {}

    def keep_floors(self, stream: str, floors: dict[str, tuple[int, int]]) -> None:
        """Remember them."""
        with self._transaction() as database:
            database.execute("UPDATE streams SET floors = ? WHERE stream = ?", [json.dumps(floors), stream])

    def files_of(self, stream: str) -> list[FileRow]:
        """The files that a stream's partition owns."""
        rows = self._rows("SELECT path, length, period, matched, since FROM files WHERE stream = ?", stream)
        return [FileRow(*row) for row in rows]  # type: ignore[arg-type]

    def file(self, path: bytes) -> tuple[str, FileRow] | None:
        """A file and the stream that owns it."""
        rows = self._rows("SELECT stream, path, length, period, matched, since FROM files WHERE path = ?", path)
        return (str(rows[0][0]), FileRow(*rows[0][1:])) if rows else None  # type: ignore[arg-type]

    def enter(self, stream: str, files: Iterable[FileRow]) -> None:
        """These files are the partition's from now on, whosever they were; before their first byte is written."""
        with self._transaction() as database:
            for row in files:
                _put_file(database, stream, row)

    def lives(self, stream: str, host: str) -> list[LifeRow]:
        """A host's lives in a stream, the one that was used longest ago first."""
        query = "SELECT host, life, next, aside FROM lives WHERE stream = ? AND host = ? ORDER BY used"
        return [LifeRow(*row) for row in self._rows(query, stream, host)]  # type: ignore[arg-type]

    def asides(self, stream: str) -> list[LifeRow]:
        """The lives of a stream of which something is kept aside."""
        query = "SELECT host, life, next, aside FROM lives WHERE stream = ? AND length(aside) > 0 ORDER BY host, used"
        return [LifeRow(*row) for row in self._rows(query, stream)]  # type: ignore[arg-type]

    def commit(self, stream: str, commit: Commit) -> None:
        """Make it true. Raises Lost where a file has another owner by now, and then nothing is. A file that nobody owns
        was swept, and is forgotten."""
        now = time.time_ns()
        with self._transaction() as database:
            for row in commit.files:
                if not _update_file(database, stream, row) and _is_known(database, row):
                    raise Lost(os.fsdecode(row.path))
            database.executemany(
                "INSERT OR REPLACE INTO lives VALUES (?, ?, ?, ?, ?, ?)",
                [[stream, row.host, row.life, row.next, row.aside, now] for row in commit.lives],
            )
            database.executemany(
                "DELETE FROM lives WHERE stream = ? AND host = ? AND life = ?",
                [[stream, *forgotten] for forgotten in commit.forgotten],
            )
            database.executemany(
                "INSERT INTO holes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",
                [[now, stream, hole.host, hole.source, hole.life, hole.first, hole.last] for hole in commit.holes],
            )
            _put_position(database, stream, commit.position, now)

    def holes(self, stream: str) -> list[Hole]:
        """What is known never to have come, the oldest first."""
        query = "SELECT host, source, life, first, last FROM holes WHERE stream = ? ORDER BY number"
        return [Hole(*row) for row in self._rows(query, stream)]  # type: ignore[arg-type]

    def clean(self, first_kept: int) -> None:
        """Forget files that are gone and whose period begins before first_kept (seconds), old lives, and more holes
        than anyone reads. A file that is there may have bytes behind its length: only its row tells."""
        with self._transaction() as database:
            old = database.execute("SELECT path FROM files WHERE period < ?", [first_kept]).fetchall()
            gone = [row for row in old if not os.path.lexists(self._root + b"/" + row[0])]
            database.executemany("DELETE FROM files WHERE path = ?", gone)
            database.execute("DELETE FROM lives WHERE used < ?", [time.time_ns() - _LIFE_KEPT_SECONDS * 10**9])
            database.execute("DELETE FROM holes WHERE number <= (SELECT max(number) FROM holes) - ?", [_HOLES_MOST])

    def lock(self, stream: str) -> int | None:
        """Be the only process on this host that reads a stream for this archive: a descriptor to close, or None."""
        fd = os.open(os.path.join(self._folder, stream + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def close(self) -> None:
        with self._lock, self._read_lock:
            self._reading.close()
            self._database.close()


def _may_pass(error: Exception) -> bool:
    """Whether it is a disk that is full or does not answer, and not a ledger that is damaged."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    text = str(error)
    return isinstance(error, sqlite3.OperationalError) and ("is full" in text or "disk I/O error" in text)


def advanced(position: Position, sequence: int, stamp: int) -> Position:
    """The position behind one more message."""
    replay_until = position.replay_until if stamp <= position.replay_until else 0
    return Position(position.created, sequence, stamp, position.latest, replay_until)


def _put_position(database: sqlite3.Connection, stream: str, position: Position, committed: int | None) -> None:
    row = [position.created, position.sequence, position.stamp, position.latest, position.replay_until]
    database.execute(
        "INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, '{}', ?, 0) ON CONFLICT(stream) DO UPDATE SET released = 0, "
        "created = excluded.created, sequence = excluded.sequence, stamp = excluded.stamp, latest = excluded.latest, "
        "replay_until = excluded.replay_until, committed = max(committed, excluded.committed)",
        [stream, *row, committed or 0],
    )


def _put_file(database: sqlite3.Connection, stream: str, row: FileRow) -> None:
    values = [row.path, stream, row.length, row.period, row.matched, row.since]
    database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", values)


def _is_known(database: sqlite3.Connection, row: FileRow) -> bool:
    return database.execute("SELECT 1 FROM files WHERE path = ?", [row.path]).fetchone() is not None


def _update_file(database: sqlite3.Connection, stream: str, row: FileRow) -> bool:
    """Whether the stream owns it."""
    changed = database.execute(
        "UPDATE files SET length = ?, matched = ?, since = ? WHERE path = ? AND stream = ?",
        [row.length, row.matched, row.since, row.path, stream],
    )
    return changed.rowcount == 1
