# SPDX-License-Identifier: GPL-3.0-or-later
"""One tailed path: its lives are read one after the other, one block at a time.

A life ends where its file is not written to any more. That is known of a file that was renamed or deleted once its
successor has data and, after that was seen, the file was at its end and everything of it acknowledged: a single writer
has then left it. A truncated file's life goes on in the copy, if there is one. Late writers are listened to for longer.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable

from .blocks import Block
from .globs import kind
from .identity import digest
from .life import RELEASE, Life, Reading, Replaced
from .lineage import Lineage, Shared
from .siblings import Sibling, reason, show
from .wire import Span

logger = logging.getLogger(__name__)

BUSY = 0.001
IDLE = 0.25
_OVERDUE = 5.0
"""A writer that goes on in the old file does not keep the new one waiting for longer."""
_LATE = 0.25
"""How often the open file of a finished life is looked at."""
_RACY_NS = 50_000_000
"""A file that was changed less than this before it was looked at may change again without another time stamp."""


class Source:
    """A configured path, or one that a glob matched. waiting tells why nothing can be read, while that is so; begun
    that a file of it could be opened; served_at when its last block was read, as time.monotonic() tells."""

    def __init__(
        self,
        path: bytes,
        shared: Shared,
        wake: Callable[[Source, float], None],
        now: float,
        bound: int | None = None,
        expected: bool = False,
    ) -> None:
        self.path = path
        self.waiting: str | None = None
        self.begun = False
        self.idle = IDLE
        self.looked_at = now
        self.served_at = 0.0
        self.lineage = Lineage(path, shared, now, bound)
        self._store = shared.store
        self._shared = shared
        self._wake = wake
        self._expected = expected
        self._delay = BUSY
        self._frozen: tuple[Block, Life, Reading] | None = None
        self._late_first = False
        # What stat said when the file had been read to its end, if nothing can have been missed since.
        self._at_rest: tuple[int, int, int, int] | None = None
        # The life that has the path's file though it is not the newest of ours.
        self._owner: Life | None = None
        # What was beside the path when nothing was there.
        self._names: list[bytes] | None = None

    @property
    def in_flight(self) -> bool:
        """Whether a block waits for its acknowledgement."""
        return self._frozen is not None

    def read(self, limit: int, hard_limit: int, now: float) -> Block | None:
        """The next block, or None if there is nothing now; the same one again until it is acknowledged or released.

        It holds what is available up to limit bytes, whole lines only; a line longer than limit comes whole up to
        hard_limit bytes, and in pieces marked partial beyond. Its life has been saved: after a crash the same bytes
        have the same life. Errors are said once, and it is tried again.
        """
        if self._frozen is None:
            try:
                self._advance(limit, hard_limit, now)
            except OSError as error:
                self._say("Waiting for %s: %s", reason(error))
        if self._frozen is not None:
            self.served_at = now
            return self._frozen[0]
        self._delay = min(self._delay * 2, self.idle)
        self._wake(self, now + self._delay)
        return None

    def acked(self, block: Block) -> None:
        """The block has arrived: the position moves behind it."""
        if self._frozen is not None and self._frozen[0] is block:
            _nothing, life, reading = self._frozen
            life.advance(reading)
            self._store.dirty = True
            self.release(block)

    def release(self, block: Block) -> None:
        """The block has not been sent: its bytes may be cut anew."""
        if self._frozen is not None and self._frozen[0] is block:
            self._frozen = None
            self._delay = BUSY
            self._wake(self, 0.0)

    def look(self, now: float) -> None:
        """See a rotation or truncation even while nothing can be read, so that no file is lost sight of."""
        try:
            self._look(now)
            newest = self.lineage.newest
            if self.lineage.unsettled:
                # What was made of finished files while the program was not running, before those are forgotten; and
                # whose file has the inode of an empty one, before it is read.
                self.lineage.update(now)
            elif newest is None or newest.record.finished:
                return
            elif newest.fresh:
                self.lineage.update(now)
            elif not newest.intact():
                self.lineage.replaced(newest, now)
        except OSError as error:
            self._say("Waiting for %s: %s", reason(error))

    def upkeep(self, now: float) -> None:
        """Listen for late bytes of finished lives, and let go of their files in time."""
        if self.lineage.upkeep(now):
            self._at_rest = None
            if self._frozen is None:
                self._wake(self, now)

    def behind(self) -> int:
        """How many bytes are not acknowledged yet; but for what is held of a last line that is not complete."""
        # A life takes what is under way for held.
        under_way = self._frozen[2].cut.length if self._frozen is not None else 0
        return under_way + sum(life.behind() for life in self.lineage.queue())

    def over(self) -> bool:
        """Whether nothing is left of the file, nor of what was read from it."""
        return self._frozen is None and self.lineage.over()

    def _look(self, now: float) -> bool:
        """See what the path is now. False if nothing can have changed since all of it was read."""
        self.looked_at = now
        try:
            found = os.stat(self.path)
        except OSError as error:
            if not self.lineage.lives:
                self.lineage.missing()
            else:
                self._look_beside(now)
            if self._expected and all(life.gone for life in self.lineage.lives):
                self._say("Waiting for %s: %s", reason(error))
            return True
        signature = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if signature == self._at_rest:
            return False
        self._at_rest = None
        if not stat.S_ISREG(found.st_mode):
            self._say("Refused %s: it is %s, not a file", kind(found.st_mode))
            return True
        newest = self.lineage.newest
        key = (found.st_dev, found.st_ino)
        if newest is None or newest.key != key or newest.record.finished:
            self._changed(Sibling(self.path, key, found.st_size, found.st_mtime_ns), now)
        return True

    def _look_beside(self, now: float) -> None:
        """Nothing is at the path: see what was there since the last look, and has another name already."""
        names = self._shared.folders.names(os.path.dirname(self.path))
        if names is not self._names:
            self._names = names
            self.lineage.update(now)

    def _changed(self, own: Sibling, now: float) -> None:
        if self._owner is not None and self._owner in self._shared.claims.get(own.key, ()):
            return
        self.lineage.update(now)
        owner = self.lineage.owner(own)
        self._owner = owner if owner is not self.lineage.newest else None
        if self._owner is not None and not self.lineage.lives and own.is_at(self._owner.record.source):
            self._say("Passing over %s: it is the same file as %s", show(self._owner.record.source))

    def _advance(self, limit: int, hard_limit: int, now: float) -> None:
        if not self._look(now):
            return
        # By turns: neither a late writer nor a busy one may starve the other.
        self._late_first = not self._late_first
        if self._late_first:
            self._read_late(limit, hard_limit, now)
        if self._frozen is None:
            self._read_queue(limit, hard_limit, now)
        if self._frozen is None and not self._late_first:
            self._read_late(limit, hard_limit, now)

    def _read_queue(self, limit: int, hard_limit: int, now: float) -> None:
        while True:
            queue = self.lineage.queue()
            if not queue:
                return
            life = queue[0]
            # Asked before the read: an end is an end only if the successor had data by then.
            succeeded = any(later.has_data() for later in queue[1:])
            all_read = life.ended and not life.held
            try:
                life.open()
                self.begun = True
                reading = life.cut(limit, hard_limit, now, succeeded)
            except (Replaced, FileNotFoundError):
                if self.lineage.replaced(life, now):
                    continue
                return
            except OSError as error:
                life.failed_at = now if life.failed_at is None else life.failed_at
                if not succeeded or now - life.failed_at < RELEASE:
                    raise
                logger.warning(
                    "Lost %s behind offset %d: %s", show(life.record.where), life.record.offset, reason(error)
                )
                self.lineage.forget(life)
                continue
            life.failed_at = None
            if reading is not None and life.fresh:
                file = life.file
                clear = self.lineage.update(now)
                if self.lineage.queue()[:1] != [life] or life.file is not file:
                    continue
                if not clear:
                    return
            held = life.held - (reading.cut.length if reading else 0)
            # What is held of a last line has a time of its own, and is only not to be extended for ever.
            overdue = succeeded and life.ended and self._overdue(life, now, 2 if held else 1)
            # Left at its last end, where all was acknowledged: what has come since is read anew, as late bytes.
            if reading is not None and (held or not (overdue and all_read)):
                self._freeze(life, reading)
                return
            if overdue or (not held and (succeeded or life.released(now))):
                self.lineage.finish(life, now)
            else:
                self._rest(life)
                return

    def _overdue(self, life: Life, now: float, times: int) -> bool:
        """Whether an old file has grown for too long since it was at its end with a successor that has data."""
        if life.ended_at is None:
            life.ended_at = now
        return now - life.ended_at >= _OVERDUE * times

    def _read_late(self, limit: int, hard_limit: int, now: float) -> None:
        for life in self.lineage.late():
            if now < life.look_at:
                continue
            try:
                reading = life.cut(limit, hard_limit, now)
            except Replaced:
                self.lineage.vanished(life)
                continue
            if reading is not None:
                self._freeze(life, reading)
                return
            life.look_at = now + _LATE

    def _freeze(self, life: Life, reading: Reading) -> None:
        """Make a block of it, unless the life has to be saved first."""
        record = life.record
        life.know_by(reading.head)
        life.fresh = False
        if not self._store.durable(record):
            self._shared.unsaved = True
            return
        span = Span(
            source=self.path,
            life=record.life,
            begin=record.offset,
            end=record.offset + reading.cut.length,
            head_length=len(reading.head),
            head_hash=digest(reading.head),
            partial=reading.cut.partial,
            since=record.since,
        )
        self._frozen = (Block(span, reading.cut.payload), life, reading)
        self.waiting = None

    def _rest(self, life: Life) -> None:
        """All is read: remember how the file looks, if it cannot change any more without looking different."""
        if len(self.lineage.queue()) > 1 or self.lineage.late() or life.file is None or life.file.whole:
            return
        found = life.file.stat()
        read = found.st_size == life.record.offset + life.held
        if read and found.st_nlink and time.time_ns() - found.st_mtime_ns > _RACY_NS:
            self._at_rest = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def _say(self, event: str, detail: str) -> None:
        """Log it, but only when it is not what was said last."""
        if self.waiting != detail:
            logger.warning(event, show(self.path), detail)
        self.waiting = detail
