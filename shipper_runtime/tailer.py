# SPDX-License-Identifier: GPL-3.0-or-later
"""Tails the files that paths and globs name: every byte of every complete line once, in the file's order.

Synchronous, driven from one thread, and without a clock of its own: whoever drives it says what time it is.
"""

from __future__ import annotations

import heapq
import logging
import os
import resource
import stat
import time
from collections.abc import Mapping, Sequence

from .errors import printable
from .globs import check_patterns, expand, fits, is_glob, kind, matches, why_nothing
from .life import Descriptors
from .lineage import Shared, stale
from .positions import PositionStore
from .rotation import rotated, rotated_from
from .siblings import Sibling, look, oldest_first, reason, show
from .source import IDLE, Source

__all__ = ["Source", "Tailer", "check_patterns"]

logger = logging.getLogger(__name__)

_SCAN = 1.0
_SCAN_SHARE = 200
"""Looking for new files takes at most so small a part of the time."""
_IDLE_PER_FILE = 0.0007
_DESCRIPTORS_RESERVED = 64
_COPYING = 10.0
"""A file with a name like a rotated one that begins like the file it may be a copy of, and has not changed for so long,
is no copy that is being made."""
_STALE = 7 * 24 * 3600
_STALE_LOOK = 3600.0


class Tailer:
    """All tailed files. scan() now and then, read() what is due(), acked() what has arrived.

    Raises SettingError for patterns that cannot work, and StateError where positions cannot be saved.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        store: PositionStore,
        *,
        start: str = "beginning",
        now: float | None = None,
        descriptors: int | None = None,
    ) -> None:
        now = time.monotonic() if now is None else now
        if descriptors is None:
            descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _DESCRIPTORS_RESERVED
        self._patterns = check_patterns(patterns)
        self._globs = [path for path in self._patterns if is_glob(path)]
        self._shared = Shared(store, Descriptors(max(descriptors, 16)))
        self._shared.is_copy = self._is_copy
        self._store = store
        self._sources: dict[bytes, Source] = {}
        self._heap: list[tuple[float, int, Source]] = []
        self._wakes: dict[Source, float] = {}
        self._pushes = 0
        self._opened: dict[bytes, None] = {}
        # Sources by folder and by what their rotated names begin with.
        self._roots: dict[tuple[bytes, bytes], list[bytes]] = {}
        # Files that may be copies in the making, with their looks and since when they look so.
        self._copies: dict[bytes, tuple[tuple[object, ...], float]] = {}
        self._said: set[bytes] = set()
        self._generation = -1
        self._scan_at = now
        self._stale_at = now + _STALE_LOOK
        self._unsettled = False
        self._unsaved_said = ""
        self._scanned_ns: int | None = None
        self._begin(start, now)

    def _begin(self, start: str, now: float) -> None:
        for pattern in self._patterns:
            if is_glob(pattern):
                for path in self._store.records:
                    if matches(pattern, path):
                        self._add(path, now)
                self._discover(pattern, now, start)
            else:
                self._add(pattern, now, expected=True, start=start)
        self._idle()
        for pattern in self._globs:
            if not any(matches(pattern, path) for path in self._sources):
                logger.warning("Waiting for %s: %s", show(pattern), why_nothing(pattern))
        self._drop_stale()
        self._save()

    def _save(self) -> None:
        try:
            self._store.save()
        except OSError as error:
            # A full disk: nothing new is read until there is room.
            if str(error) != self._unsaved_said:
                folder = printable(self._store.folder)
                logger.error("Cannot save the positions in %s: %s; waiting", folder, error.strerror)
            self._unsaved_said = str(error)
        else:
            self._shared.unsaved = False
            self._unsaved_said = ""

    @property
    def sources(self) -> Mapping[bytes, Source]:
        """The tailed paths, those that are waited for included."""
        return self._sources

    def opened(self) -> list[bytes]:
        """The paths of which the first file was opened since this was asked last."""
        opened = [path for path in self._opened if path in self._sources and self._sources[path].begun]
        for path in opened:
            del self._opened[path]
        return opened

    def scan(self, now: float) -> None:
        """Look for new files, and at files that are not read at present. Paces itself."""
        if now < self._scan_at:
            return
        began = time.perf_counter()
        scanned = time.time_ns()
        unsettled, self._unsettled = self._unsettled, False
        for pattern in self._globs:
            self._discover(pattern, now, again=unsettled)
        self._generation = self._shared.folders.generation
        self._shared.looks += 1
        self._scanned_ns = scanned
        for path, source in list(self._sources.items()):
            if now - source.looked_at >= max(_SCAN, 2 * source.idle):
                source.look(now)
            source.upkeep(now)
            if path not in self._patterns and source.over():
                self._remove(source)
        if now >= self._stale_at:
            self._stale_at = now + _STALE_LOOK
            self._drop_stale()
            self._shared.folders.forget()
        self._scan_at = now + max(_SCAN, _SCAN_SHARE * (time.perf_counter() - began))

    def due(self, now: float) -> list[Source]:
        """The sources that are worth reading now, who was served longest ago first: where not all can be, a file with a
        backlog does not keep the others waiting. One that is not read is due again soon.

        First, what the first blocks of new files wait for: their lives are saved, all in one go.
        """
        if self._shared.unsaved:
            self._save()
        due = []
        while self._heap and self._heap[0][0] <= now:
            at, _nothing, source = heapq.heappop(self._heap)
            if self._wakes.get(source) == at:
                del self._wakes[source]
                if not source.in_flight:
                    due.append(source)
        due.sort(key=lambda source: source.served_at)
        for source in due:
            self._wake(source, now + IDLE / 10)
        return due

    def next_due(self, now: float) -> float:
        """Seconds until something is due, or scan() has something to do."""
        while self._heap and self._wakes.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        at = self._heap[0][0] if self._heap else self._scan_at
        return max(0.0, min(at, self._scan_at) - now)

    def close(self) -> None:
        """Let go of all files. Saves nothing."""
        self._shared.descriptors.close()

    def _wake(self, source: Source, at: float) -> None:
        self._wakes[source] = at
        self._pushes += 1
        heapq.heappush(self._heap, (at, self._pushes, source))

    def _idle(self) -> None:
        idle = max(IDLE, _IDLE_PER_FILE * len(self._sources))
        for source in self._sources.values():
            source.idle = idle

    def _add(
        self,
        path: bytes,
        now: float,
        *,
        expected: bool = False,
        own: Sibling | None = None,
        older: Sequence[Sibling] = (),
        start: str | None = None,
    ) -> None:
        """Tail a path. start is given at the program's start only, older are files that come before the path's."""
        if path in self._sources:
            return
        known = path in self._store.records
        source = Source(path, self._shared, self._wake, now, self._scanned_ns, expected)
        self._sources[path] = source
        folder, name = os.path.split(path)
        self._roots.setdefault((folder, name.rpartition(b".")[0] or name), []).append(path)
        self._opened[path] = None
        own = own or look(path)
        if own is not None and not known and start is not None:
            at_end = start == "end" and self._store.first_start
            source.lineage.begin(own, [] if at_end else list(older), at_end, now)
        else:
            source.look(now)
        self._wake(source, now)

    def _remove(self, source: Source) -> None:
        source.lineage.drop()
        del self._sources[source.path]
        self._wakes.pop(source, None)
        folder, name = os.path.split(source.path)
        root = (folder, name.rpartition(b".")[0] or name)
        self._roots[root].remove(source.path)
        if not self._roots[root]:
            del self._roots[root]

    def _discover(self, pattern: bytes, now: float, start: str | None = None, again: bool = False) -> None:
        found = expand(pattern, self._shared.folders)
        if self._generation == self._shared.folders.generation and not again:
            return
        strange = [path for path in found if path not in self._sources]
        if not strange:
            return
        rotations: dict[bytes, list[bytes]] = {}
        bases = set(strange)
        for path in strange:
            base = self._base(path, bases)
            if base is not None:
                bases.discard(path)
                rotations.setdefault(base, []).append(path)
        before = len(self._sources)
        for path in strange:
            if path in bases:
                self._judge(path, now, start, rotations.get(path, []))
        if len(self._sources) != before:
            self._idle()

    def _base(self, path: bytes, among: set[bytes]) -> bytes | None:
        """The tailed path that this one is a rotated name of, to be sure."""
        folder, name = os.path.split(path)
        for base in rotated_from(name):
            candidate = os.path.join(folder, base)
            if candidate in self._sources or candidate in among:
                return candidate
        return None

    def _judge(self, path: bytes, now: float, start: str | None, rotations: list[bytes]) -> None:
        """Tail a path that a glob has matched, unless its file is known already or is no file."""
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return
        except OSError as error:
            self._say_once(path, "Waiting for %s: %s", reason(error))
            self._unsettled = True
            return
        if not stat.S_ISREG(found.st_mode):
            if not stat.S_ISDIR(found.st_mode):
                self._say_once(path, "Refused %s: it is %s, not a file", kind(found.st_mode))
            return
        if not fits(path):
            self._say_once(path, "Refused %s: %s", "its path is too long for a message")
            return
        own = Sibling(path, (found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns)
        owner = self._shared.owner(own)
        if owner is not None:
            if own.is_at(owner.record.source):
                self._say_once(path, "Passing over %s: it is the same file as %s", show(owner.record.source))
            return
        if self._is_copy(own, now):
            self._unsettled = True
            return
        older = []
        for other in rotations:
            sibling = look(other, rotated(os.path.basename(path), os.path.basename(other)))
            if sibling is not None and self._shared.owner(sibling) is None:
                older.append(sibling)
        self._add(path, now, own=own, older=oldest_first(older), start=start or "beginning")

    def _is_copy(self, own: Sibling, now: float) -> bool:
        """Whether the file is a copy, perhaps in the making, of a file whose rotated name it has."""
        folder, name = os.path.split(own.path)
        for length in range(1, len(name)):
            for base in self._roots.get((folder, name[:length]), ()):
                how = rotated(os.path.basename(base), name)
                if how is None or base == own.path:
                    continue
                if self._copied(base, own) and (how.sure or self._young(own, now)):
                    return True
        self._copies.pop(own.path, None)
        return False

    def _copied(self, base: bytes, own: Sibling) -> bool:
        if own.size == 0:
            return True
        return any(life.begins_with(own) or life.copied_to(own) for life in self._sources[base].lineage.lives)

    def _young(self, own: Sibling, now: float) -> bool:
        looks, since = self._copies.get(own.path, (None, now))
        if looks != own.identity:
            since = now
        self._copies[own.path] = (own.identity, since)
        return now - since < _COPYING

    def _say_once(self, path: bytes, event: str, detail: str) -> None:
        if path not in self._said:
            self._said.add(path)
            logger.warning(event, show(path), detail)

    def _drop_stale(self) -> None:
        """Forget what has had no file for long; a folder may only be not mounted, so nothing is forgotten sooner."""
        oldest = int(time.time()) - _STALE
        for path, records in list(self._store.records.items()):
            if path in self._patterns:
                continue
            gone = stale(records, oldest)
            source = self._sources.get(path)
            if source is not None:
                for life in [life for life in source.lineage.lives if life.record in gone]:
                    found = source.lineage.whereabouts(life)
                    if found is not None:
                        life.record.where, life.record.seen = found.path, int(time.time())
                    else:
                        source.lineage.forget(life)
            elif gone:
                records[:] = [record for record in records if record not in gone]
                if not records:
                    del self._store.records[path]
        self._store.dirty = True
