# SPDX-License-Identifier: GPL-3.0-or-later
"""The producer's memory: how far every file has been acknowledged, in one file that is replaced as a whole."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import StateError, printable
from .identity import Record

logger = logging.getLogger(__name__)

NAME = "positions.json"
LOCK = "lock"
VERSION = 1

_FIELDS = {field.name: field.type for field in dataclasses.fields(Record)}
# Fields that an older version did not write.
_LATER: dict[str, Any] = {"nuls": 0, "since": 0}
_KINDS: dict[str, type] = {"str": str, "bytes": str, "int": int, "bool": bool}


@dataclass(frozen=True)
class Acknowledged:
    """The last message that a stream has acknowledged: its partition and the sequence."""

    partition: int
    sequence: int


class PositionStore:
    """Records of lives by source, the oldest life first, and for each stream what it acknowledged last; what is in the
    file survives a crash at any moment.

    The folder is made where it is missing, and locked against a second producer until close(). first_start tells that
    there was no file of positions. Everything is called from one thread, except write().

    begun counts the lives that were ever durable(). Each is before it is sent, so a message that was sent when there
    were more tells that the file is an old copy. None: another version wrote the file, which does not count.

    The lives that were in the file stay known until confirmed(), even if their files are gone: what was sent of them
    last before a crash may be in the stream without having been acknowledged here.

    Raises StateError when the folder cannot be used, is in use, or holds a file that cannot be understood: then nothing
    is guessed, because to start over silently would send every file once more.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.records: dict[bytes, list[Record]] = {}
        self.acknowledged: dict[str, Acknowledged] = {}
        self.begun: int | None = 0
        self._target: str | None = None
        self.dirty = False
        self._path = os.path.join(folder, NAME)
        self._writing = threading.Lock()
        self._newest: bytes | None = None
        self._durable: set[str] = set()
        self._unconfirmed: set[str] = set()
        self._is_confirmed = False
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self._lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(
                "SHIPPER_STATE=%s: cannot be used (%s); name a folder this user may write to"
                % (printable(folder), error.strerror)
            ) from None
        try:
            self._take_lock()
            if not os.access(folder, os.W_OK):
                raise StateError(
                    "SHIPPER_STATE=%s: cannot be written to; name a folder this user may write to" % printable(folder)
                )
            self.first_start = self._load()
        except BaseException:
            os.close(self._lock)
            raise

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            reason = "in use by another producer" if isinstance(error, BlockingIOError) else error.strerror
            raise StateError(
                "SHIPPER_STATE=%s: %s; stop it, or give this one a folder of its own" % (printable(self.folder), reason)
            ) from None

    def _load(self) -> bool:
        try:
            with open(self._path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return True
        except OSError as error:
            raise StateError("%s: cannot be read (%s)" % (printable(self._path), error.strerror)) from None
        try:
            self.records, self.acknowledged, self._unconfirmed, self.begun, self._target = parse(content)
            for records in self.records.values():
                self._unconfirmed.update(record.life for record in records)
                self._durable.update(record.life for record in records if record.head_length)
        except UNREADABLE as error:
            raise StateError(
                "%s: not a file of positions (%s); restore it from a backup, or move it away to begin all files anew"
                % (printable(self._path), printable(str(error)))
            ) from None
        return False

    def publish_to(self, target: str) -> None:
        """Whatever is published from now on goes there. Where it went elsewhere before, that is remembered."""
        if self._target not in (None, target):
            for records in self.records.values():
                for record in records:
                    record.since = record.offset
        if self._target != target:
            self._target = target
            self.dirty = True

    def acknowledge(self, stream: str, partition: int, sequence: int) -> None:
        """A stream has acknowledged a message."""
        last = self.acknowledged.get(stream)
        if last is None or last.sequence < sequence:
            self.acknowledged[stream] = Acknowledged(partition, sequence)

    def knows(self, life: str) -> bool:
        """Whether a life is among the records, or was when they were read."""
        return life in self._unconfirmed or any(
            record.life == life for records in self.records.values() for record in records
        )

    def confirmed(self) -> None:
        """The stream has nothing that these positions do not know."""
        self._unconfirmed.clear()
        self._is_confirmed = True

    def count_from(self, begun: int) -> None:
        """Go on behind another version that did not count: the stream knows of so many lives."""
        if self.begun is None:
            self.begun = begun
            self.dirty = True

    def durable(self, record: Record) -> bool:
        """Whether the record's life, and by what it is known, has been saved since confirmed(); the offset may be
        older."""
        return record.life in self._durable

    def snapshot(self) -> bytes:
        """All records as they are now, for write(); the store counts as clean from here on."""
        entries = [_encode(record) for records in self.records.values() for record in records]
        streams = json.dumps({stream: dataclasses.asdict(last) for stream, last in self.acknowledged.items()})
        gone = self._unconfirmed.difference(record.life for records in self.records.values() for record in records)
        data = b'{"version": %d, "begun": %b, "to": %b, "acknowledged": %b, "unconfirmed": %b, "lives": [\n%b\n]}\n' % (
            VERSION,
            json.dumps(self.begun).encode(),
            json.dumps(self._target).encode(),
            streams.encode(),
            json.dumps(sorted(gone)).encode(),
            b",\n".join(entries),
        )
        self._newest = data
        self.dirty = False
        return data

    def write(self, data: bytes) -> None:
        """Replace the file by a snapshot; it is on disk on return. From any thread. Raises OSError, the old file stays.

        A snapshot that is not the newest is dropped: whoever took the newer one writes that.
        """
        with self._writing:
            if data is not self._newest:
                return
            fresh = self._path + ".new"
            try:
                fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                with open(fd, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(fresh, self._path)
            except OSError:
                # What a full disk left of it would only take room.
                with contextlib.suppress(OSError):
                    os.unlink(fresh)
                raise
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def save(self) -> None:
        """Write what there is now. Raises OSError, and then stays dirty."""
        lives = {each.life for records in self.records.values() for each in records if each.head_length}
        if not self._is_confirmed:
            # None of them is sent before; and an old copy that begins files anew must stay one.
            lives &= self._durable
        begun = self.begun
        if begun is not None:
            self.begun = begun + len(lives - self._durable)
        try:
            self.write(self.snapshot())
        except OSError:
            self.begun, self.dirty = begun, True
            raise
        self._durable = lives

    def save_if_dirty(self) -> None:
        """Write what has changed, if anything has. Raises OSError, and then stays dirty."""
        if self.dirty:
            self.save()

    def close(self) -> None:
        """Let another producer have the folder. Saves nothing."""
        os.close(self._lock)


# What parse() raises for a file of positions that is none.
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class Positions(NamedTuple):
    """What a file of positions holds: the records by source, what each stream acknowledged last, the lives whose files
    are gone and that were not confirmed, how many were ever begun, and where all of it was published."""

    records: dict[bytes, list[Record]]
    acknowledged: dict[str, Acknowledged]
    unconfirmed: set[str]
    begun: int | None
    target: str | None


def parse(content: bytes) -> Positions:
    """Raises one of UNREADABLE."""
    document = json.loads(content)
    version = document["version"]
    if version != VERSION:
        raise ValueError("of version %s, this program knows %d" % (version, VERSION))
    acknowledged = {
        stream: Acknowledged(int(last["partition"]), int(last["sequence"]))
        for stream, last in document.get("acknowledged", {}).items()
    }
    records: dict[bytes, list[Record]] = {}
    for entry in document["lives"]:
        record = _decode(entry)
        records.setdefault(record.source, []).append(record)
    begun = document.get("begun")
    unconfirmed = {str(life) for life in document.get("unconfirmed", [])}
    target = document.get("to")
    return Positions(
        records,
        acknowledged,
        unconfirmed,
        None if begun is None else int(begun),
        None if target is None else str(target),
    )


def _encode(record: Record) -> bytes:
    entry: dict[str, Any] = dict(record.extra)
    for name in _FIELDS:
        value = getattr(record, name)
        if name != "extra":
            entry[name] = os.fsdecode(value) if isinstance(value, bytes) else value
    return json.dumps(entry).encode("ascii")


def _decode(entry: dict[str, Any]) -> Record:
    known: dict[str, Any] = {}
    for name, kind in _FIELDS.items():
        if name == "extra":
            continue
        value: Any = entry.pop(name, _LATER.get(name))
        right = isinstance(value, _KINDS[str(kind)]) and isinstance(value, bool) == (kind == "bool")
        if not right or (kind == "int" and value < 0):
            raise ValueError("%s is %r" % (name, value))
        known[name] = os.fsencode(value) if kind == "bytes" else value
    return Record(**known, extra=entry)
