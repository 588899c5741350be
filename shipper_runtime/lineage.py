# SPDX-License-Identifier: GPL-3.0-or-later
"""The lives that were and are behind one path, oldest first, and where their files are now.

The newest is the path's own file. Before it come files that rotation has given other names, and that may not have been
seen under the path at all: two rotations between two looks, or while the program was not running.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable

from .identity import HEAD_MAX, Key, Record
from .life import QUIET, RELEASE, Descriptors, Life, Replaced
from .positions import PositionStore
from .rotation import renamed
from .siblings import AnyFile, Folders, Sibling, find_copy, look, oldest_first, show

logger = logging.getLogger(__name__)

_LOOK_LEAST, _LOOK_MOST = 5.0, 300.0
"""How often a finished file without a descriptor is looked at, for late bytes."""
_GONE_MOST = 4
_LOOKS_MOST = 10
"""Finished lives without a file that are remembered, to recognise what was made of them."""
_TIME_SLACK_NS = 2_000_000_000
_TICK_NS = 20_000_000
"""Time stamps of files may lie so far behind the clock."""


class _MovedOn(Exception):
    """Files were renamed or copied while they were looked at: look again."""


def _names(own: Sibling | None, family: list[Sibling]) -> list[tuple[bytes, Key, int]]:
    """Who is where, and how long those are that are not written to any more."""
    return [(each.path, each.key, each.size) for each in family] + ([(own.path, own.key, 0)] if own else [])


class Shared:
    """What all paths have in common: claims tells whose file a device and inode may be. Several lives have the same one
    where a file was deleted, and its inode given to another file, while the program was not running.

    is_copy tells whether the file at a path is a copy, perhaps in the making, of another tailed path's file. looks
    counts how often all folders have been looked into: a file that is missed may have been moved to another one since.
    """

    def __init__(self, store: PositionStore, descriptors: Descriptors) -> None:
        self.store = store
        self.descriptors = descriptors
        self.folders = Folders()
        self.claims: dict[Key, list[Life]] = {}
        self.looks = 0
        self._places: dict[Key, bytes] = {}
        self._placed: int | None = None
        # Blocks wait for this: before anything of a life is sent, what it is known by has to be saved.
        self.unsaved = False
        self.is_copy: Callable[[Sibling, float], bool] = lambda sibling, now: False

    def owner(self, sibling: Sibling) -> Life | None:
        """The life that this file is known to be. One that was empty, of which nothing was read, is known only where it
        was: it is not looked for."""
        claiming = [
            life
            for life in self.claims.get(sibling.key, ())
            if life.is_file(sibling)
            and (life.file or not life.unknown or life.record.where == os.path.realpath(sibling.path))
        ]
        return min(claiming, key=lambda life: life.unknown, default=None)

    def elsewhere(self, key: Key) -> Sibling | None:
        """The file of this device and inode in any of the folders that are looked into."""
        if self._placed != self.folders.generation:
            for source in self.store.records:
                self.folders.names(os.path.dirname(source))
            found = (look(path) for path in self.folders.paths())
            self._places = {each.key: each.path for each in found if each is not None and each.key in self.claims}
            self._placed = self.folders.generation
        path = self._places.get(key)
        sibling = look(path, renamed(os.path.basename(path))) if path is not None else None
        return sibling if sibling is not None and sibling.key == key else None

    def missed(self, life: Life) -> bool:
        """Note that a life's file was not found; True if all folders have been looked into since that was noted."""
        if life.missed_at is None:
            life.missed_at = self.looks
        return life.missed_at < self.looks


class Lineage:
    """The queue of lives of one path. Siblings changed at or after bound may be its even if nothing else is known."""

    def __init__(self, path: bytes, shared: Shared, now: float, bound: int | None) -> None:
        self.path = path
        self._shared = shared
        self._records = shared.store.records.setdefault(path, [])
        self.lives = [Life(record, shared.descriptors, now) for record in self._records]
        for life in self.lives:
            if not life.gone:
                shared.claims.setdefault(life.key, []).append(life)
        # Siblings that were looked at and are not ours. None: none was looked at since the program began.
        self._ignored: set[tuple[Key, int, int]] | None = None
        self._bound = bound
        # Siblings that may be copies in the making, and since when they look as they do.
        self._copies: dict[tuple[Key, int, int], float] = {}
        # What update() has seen, while it may look again.
        self._seen: tuple[Sibling | None, list[Sibling]] | None = None
        for life in [life for life in self.lives if life.record.finished and life.unknown]:
            # Empty to the end: while the program was not running, any file may have been given its inode.
            self.forget(life)

    @property
    def newest(self) -> Life | None:
        return self.lives[-1] if self.lives else None

    @property
    def unsettled(self) -> bool:
        """Whether finished or empty files are remembered, and nobody has looked since the start what became of them."""
        return self._ignored is None and any(life.record.finished or life.unknown for life in self.lives)

    def queue(self) -> list[Life]:
        """The lives that are not finished, oldest first."""
        return [life for life in self.lives if not life.record.finished]

    def late(self) -> list[Life]:
        """The finished lives that are still listened to."""
        return [life for life in self.lives if life.record.finished and life.file is not None]

    def owner(self, own: Sibling) -> Life | None:
        return self._shared.owner(own)

    def missing(self) -> None:
        """Nothing is at the path, and nothing was: what comes to be from now on is ours."""
        if self._ignored is None:
            self._ignored = {sibling.identity for sibling in self._shared.folders.snapshot(self.path)[1]}
        self._bound = time.time_ns() - _TICK_NS

    def begin(self, own: Sibling, older: list[Sibling], at_end: bool, now: float) -> None:
        """The very first look at a file that is there; older are rotated names of it that are to be read before it."""
        family = self._shared.folders.snapshot(self.path)[1]
        for sibling in (*older, own):
            if self.owner(sibling) is None:
                self._add(sibling, now, at_end=at_end)
        self._ignored = {sibling.identity for sibling in family if self.owner(sibling) is None}

    def update(self, now: float) -> bool:
        """Look around: find the files of lives that are not at hand, and queue files that were never seen.

        False if the path's own life is not to be begun yet: others were queued before it, or there may be one: what
        may be a copy of it that is being made will soon show what it is.
        """
        for _turn in range(_LOOKS_MOST):
            self._seen = self._shared.folders.snapshot(self.path)
            with contextlib.suppress(_MovedOn):
                return self._update(*self._seen, now)
        self._seen = None
        return self._update(*self._shared.folders.snapshot(self.path), now)

    def _update(self, own: Sibling | None, family: list[Sibling], now: float) -> bool:
        family = oldest_first(family, self._read_at)
        truncated = self._settle_all(own, family)
        for life in self.lives:
            life.learn_head()
        current = next((life for life in self.lives if own is not None and life.key == own.key), None)
        known = current is not None
        if own is not None and not known and self.owner(own) is None and not self._shared.is_copy(own, now):
            if self.lives or truncated:
                event = "Truncated" if own.key in truncated else "Rotated"
                logger.info("%s %s: a new file begins", event, show(self.path))
            # Before the others, one of which may be a copy in the making of it.
            current = self._add(own, now, nuls=truncated.get(own.key))
        copies = []
        preceded = False
        least = self._bound
        if least is None and self.lives:
            least = self.lives[0].record.mtime + (self._ignored is None)
        # The newest first: once it is known what was made of a finished life, nothing that is older can be new.
        for sibling in reversed(family):
            at = self._place(sibling, current, family, least)
            if at is None:
                continue
            if current is not None and self._copying(current, sibling, now):
                copies.append(sibling)
                continue
            successor = self.lives[at] if at < len(self.lives) else None
            # A copy, perhaps, that was made when its writer had left NULs already.
            nuls = min(truncated.values(), default=None)
            if nuls is None and successor is not None and successor.record.skip_nuls:
                nuls = successor.record.nuls
            self._add(sibling, now, at, nuls)
            preceded |= successor is not None
        strange = {each.identity for each in family if each not in copies and self.owner(each) is None}
        self._ignored = strange | (self._ignored or set()) if known else strange
        if current is not None and current is self.newest and current.record.finished:
            current.record.finished = False
        # Not sooner: what was made of them has been recognised by now.
        for life in [life for life in self.lives if life.record.finished and life.gone][:-_GONE_MOST]:
            self.forget(life)
        return not copies and not preceded

    def _read_at(self, sibling: Sibling) -> int:
        owner = self.owner(sibling)
        return sibling.mtime if owner is None or owner.unknown else owner.record.mtime

    def _settle_all(self, own: Sibling | None, family: list[Sibling]) -> dict[Key, int]:
        """See that every life that is not finished has its file, or is given up; what files were truncated, and how
        long they were at least."""
        truncated = {}
        # Those that can be told first: where they are helps to tell the others.
        settled = [life for life in self.lives if not (life.record.finished and life.gone)]
        for life in sorted(settled, key=lambda life: life.unknown):
            key, was_open = life.key, life.file is not None
            if life.record.finished:
                if not life.intact() or (own is not None and key == own.key and not life.is_file(own)):
                    self.vanished(life)
            elif not was_open and life.unknown and (life.gone or self._reused(life, own, family)):
                self.forget(life)
            elif not was_open or not life.intact():
                shrunk, length = life.shrunk(), max(life.size, life.record.offset)
                life.close()
                with contextlib.suppress(OSError):
                    self._settle(life, own, family, was_open, shrunk)
                if life.key != key and (was_open or (own is not None and own.key == key)):
                    truncated[key] = length
        return truncated

    def _reused(self, life: Life, own: Sibling | None, family: list[Sibling]) -> bool:
        """Whether the inode of a file that was empty is another's by now: one that came after a later life's."""
        later = self.lives[self.lives.index(life) + 1 :]
        if own is not None and own.key == life.key:
            return bool(later)
        here = next((each for each in family if each.key == life.key), None)
        others = [each for each in family if any(other.is_file(each) for other in later)]
        return here is not None and any(here.newer_than(other) for other in others)

    def _place(self, sibling: Sibling, current: Life | None, family: list[Sibling], least: int | None) -> int | None:
        """Where in the queue a file belongs that was never seen, or None if it is known or not of this path.

        The order among the names tells between which lives it was. Nothing can have been there before a life that is
        known by its bytes: the path was looked at when those were first read.
        """
        if not sibling.size or sibling.identity in (self._ignored or ()) or self.owner(sibling) is not None:
            return None
        at, anchor = len(self.lives), None
        for index, life in enumerate(self.lives):
            there = next((each for each in family if life.made == each.identity or life.is_file(each)), None)
            if life is current or self._older(sibling, there, life):
                at = index
                break
            anchor = there or anchor
        if at < len(self.lives) and not self.lives[at].fresh:
            return None
        if at > 0:
            bound = self.lives[at - 1].record.mtime - (_TIME_SLACK_NS if anchor else 0)
        elif least is not None:
            bound = least
        else:
            return None
        ours = sibling.sure or (anchor is not None and sibling.made_like(anchor))
        return at if ours and sibling.mtime >= bound and not self._known(sibling, current, family) else None

    @staticmethod
    def _older(sibling: Sibling, there: Sibling | None, life: Life) -> bool:
        """Whether a file is older than a life's, which is there or else was deleted."""
        if there is not None:
            return not sibling.newer_than(there)
        return life.fresh and life.file is not None and sibling.mtime < life.file.stat().st_mtime_ns

    def _known(self, sibling: Sibling, current: Life | None, family: list[Sibling]) -> bool:
        """Whether it was made of a life whose own file is not there any more; or else, it cannot be read."""
        try:
            sibling.open().close()
        except OSError as error:
            logger.warning("Lost %s, a part of %s: %s", show(sibling.path), show(self.path), error.strerror or error)
            return True
        made_of = [life for life in self.lives if life is not current and life.record.head_length]
        there = [life for life in made_of if life.intact() and any(life.is_file(other) for other in family)]
        for life in made_of:
            # One file is made of one life, should all begin alike.
            if life not in there and life.made in (None, sibling.identity) and life.copied_to(sibling):
                life.made = sibling.identity
                return True
        return False

    def _copying(self, current: Life, sibling: Sibling, now: float) -> bool:
        """Whether it may be a copy in the making of the path's own file: its first part, and just changed."""
        return current.begins_with(sibling) and now - self._copies.setdefault(sibling.identity, now) < QUIET

    def replaced(self, life: Life, now: float) -> bool:
        """The life's file is not where it was, or not what it was: go on where its rest is. False: wait."""
        self.update(now)
        return life not in self.lives or life.file is not None

    def whereabouts(self, life: Life) -> Sibling | None:
        """The life's file under any name of its folder, or of another one. Of one that was empty only the inode is
        known, which another file may have been given, and that one is perhaps nobody's to ship."""
        if life.unknown:
            return None
        return self._shared.folders.with_key(life.record.where, life.key) or self._shared.elsewhere(life.key)

    def _settle(
        self, life: Life, own: Sibling | None, family: list[Sibling], cut_away: bool = False, shrunk: bool = False
    ) -> bool:
        """Open the life's file wherever it is now, or give it up. False if it may still turn up."""
        # One that is shorter than it was and has all that was read: it was truncated if a copy has it too, otherwise
        # its writer took something back.
        copy = self._copy(life, own, family, cut_away) if shrunk else None
        if copy is None and self._find(life, own, family):
            return True
        copy = copy or self._copy(life, own, family, cut_away)
        if copy is not None:
            self._unclaim(life)
            life.move(*copy)
            self._claim(life)
            self._say_found(life)
            self._shared.store.dirty = True
            return True
        here = own is not None and own.key == life.key
        if not cut_away and not here and (own is None or not self._shared.missed(life)):
            return False
        if self._seen is not None and _names(*self._seen) != _names(*self._shared.folders.snapshot(self.path)):
            # What was looked for has another name by now: to lose it would have it sent again when it is found.
            raise _MovedOn
        self._lose(life, family, cut_away or here)
        return True

    def _find(self, life: Life, own: Sibling | None, family: list[Sibling]) -> bool:
        """Open the very file, whatever it is called by now."""
        with contextlib.suppress(FileNotFoundError, Replaced):
            life.open()
            return True
        folder = os.path.dirname(life.record.where)
        for sibling in (own, self.whereabouts(life), *family):
            if sibling is not None and life.is_file(sibling):
                with contextlib.suppress(FileNotFoundError, Replaced):
                    life.move(sibling)
                    life.open()
                    if os.path.dirname(life.record.where) != folder:
                        self._say_found(life)
                    self._shared.store.dirty = True
                    return True
        return False

    def _copy(
        self, life: Life, own: Sibling | None, family: list[Sibling], cut_away: bool
    ) -> tuple[Sibling, AnyFile] | None:
        """Another file that holds what was read, opened."""
        # A copy was made before the file it was made of was renamed in its turn.
        after = next((sibling for sibling in family if cut_away and sibling.key == life.key), None)
        candidates = [
            sibling
            for sibling in family
            if (after is None or after.newer_than(sibling)) and not self._taken(sibling, life)
        ]
        copy = find_copy(life.record, candidates)
        # Moved to another disk, with its folder: the same bytes at the same path under another inode. Or the disk has
        # another number since the system was started: then the inode is the same, and few bytes tell enough. Another
        # inode on the same disk is another file, which may begin alike.
        telling = own is not None and (life.record.offset > HEAD_MAX or own.key[1] == life.key[1])
        moved = own is not None and own.key[0] != life.key[0] and telling and not cut_away
        if copy is None and own is not None and moved and not self._taken(own, life):
            copy = find_copy(life.record, [own])
        return copy

    def _say_found(self, life: Life) -> None:
        record = life.record
        logger.info("Found the rest of %s behind offset %d in %s", show(self.path), record.offset, show(record.where))

    def _lose(self, life: Life, family: list[Sibling], truncated: bool) -> None:
        # A copy that holds less than was read, because it was made while that was written.
        shorter = {each.identity for each in family if life.record.offset and life.shortened_to(each)}
        self._ignored = (self._ignored or set()) | shorter
        if truncated:
            message = "Truncated %s at offset %d: what was behind it and had not been read, if anything, is lost"
        else:
            message = "Lost %s behind offset %d: the file that was being read is not there any more"
        if life.record.offset or not family:
            logger.warning(message, show(self.path), life.record.offset)
        self.vanished(life)
        self.forget(life)

    def _taken(self, sibling: Sibling, life: Life) -> bool:
        """Whether the file is another life's. One that is finished may have been overwritten by a newer copy."""
        owner = self.owner(sibling)
        # What a file holds tells more than its inode, which may have been given to another one.
        if owner is None or owner is life or (owner.unknown and owner.file is None):
            return False
        return not owner.record.finished or bool(sibling.codec) or sibling.size == owner.record.offset

    def _add(
        self, sibling: Sibling, now: float, at: int | None = None, nuls: int | None = None, at_end: bool = False
    ) -> Life:
        """nuls: how many may precede it, at least, because it was truncated."""
        record = Record(
            source=self.path,
            where=sibling.path,
            device=sibling.key[0],
            inode=sibling.key[1],
            mtime=sibling.mtime,
            codec=sibling.codec,
            skip_nuls=nuls is not None,
            nuls=nuls or 0,
        )
        if at_end and sibling.size:
            record.offset, record.tail_hash = sibling.size, ""
        life = Life(record, self._shared.descriptors, now)
        at = len(self.lives) if at is None else at
        self.lives.insert(at, life)
        self._records.insert(at, record)
        self._claim(life)
        self._shared.store.dirty = True
        # At once: by the time it is read it may have been renamed or deleted. What hinders is said when it is read.
        with contextlib.suppress(OSError, Replaced):
            life.open()
            life.learn_head()
        return life

    def _claim(self, life: Life) -> None:
        for other in self._shared.claims.get(life.key, ()):
            if other is not life:
                other.vanish()
        self._shared.claims[life.key] = [life]

    def _unclaim(self, life: Life) -> None:
        claiming = self._shared.claims.get(life.key, [])
        if life in claiming:
            claiming.remove(life)
        if not claiming:
            self._shared.claims.pop(life.key, None)

    def forget(self, life: Life) -> None:
        """Take the life out of the queue and of what is saved."""
        self._unclaim(life)
        life.close()
        self.lives.remove(life)
        self._records[:] = [other.record for other in self.lives]
        self._bound = max(self._bound or 0, life.record.mtime)
        self._shared.store.dirty = True

    def vanished(self, life: Life) -> None:
        """The file of a finished life is not there any more; but what was made of it may turn up."""
        self._unclaim(life)
        life.vanish()
        self._shared.store.dirty = True

    def finish(self, life: Life, now: float) -> None:
        """All of it has been read, and its writer has gone on to the next file; but late bytes are listened for."""
        logger.debug("Finished %s, life %s, at offset %d", show(self.path), life.record.life, life.record.offset)
        life.record.finished = True
        life.look_at = now
        self._shared.store.dirty = True
        if life.released(now) or (life.file is not None and life.file.whole):
            self._let_go(life, now)

    def _let_go(self, life: Life, now: float) -> None:
        if life.deleted():
            self.vanished(life)
            return
        life.close()
        life.look_pause = _LOOK_LEAST
        life.look_at = now + _LOOK_LEAST

    def upkeep(self, now: float) -> bool:
        """Release the descriptors of finished files, and look at those now and then; True if one has late bytes."""
        grown = False
        for life in [life for life in self.lives if life.record.finished and not life.gone]:
            if life.file is not None:
                if now - life.grown_at >= RELEASE and not (life.held and life.deleted()):
                    self._let_go(life, now)
            elif now >= life.look_at:
                grown |= self._look_again(life, now)
        return grown

    def _look_again(self, life: Life, now: float) -> bool:
        record = life.record
        life.look_pause = min(max(life.look_pause * 2, _LOOK_LEAST), _LOOK_MOST)
        life.look_at = now + life.look_pause
        found = look(record.where)
        if found is None or found.key != life.key:
            found = self.whereabouts(life)
            if found is not None and not life.is_file(found):
                self.vanished(life)
                return False
            if found is None and not self._shared.missed(life):
                life.look_at = now
                return False
            if found is None:
                self.vanished(life)
                return False
            life.move(found)
            self._shared.store.dirty = True
        if found.size <= record.offset or record.codec:
            return False
        try:
            life.open()
        except Replaced:
            self.vanished(life)
            return False
        except OSError as error:
            logger.debug("Cannot look into %s again: %s", show(record.where), error)
            return False
        life.look_at = life.grown_at = now
        return True

    def over(self) -> bool:
        """Whether the file, and everything that rotation made of it, is gone for good."""
        return (
            all(life.gone for life in self.lives)
            and not os.path.lexists(self.path)
            and not self._shared.folders.snapshot(self.path)[1]
        )

    def drop(self) -> None:
        """Forget everything."""
        for life in list(self.lives):
            self.forget(life)
        del self._shared.store.records[self.path]


def stale(records: list[Record], oldest: int) -> list[Record]:
    """Those that have no file and had none since oldest; of the others it is noted that they have one."""
    found = []
    for record in records:
        sibling = look(record.where)
        if sibling is not None and sibling.key == record.key:
            record.seen = int(time.time())
        elif record.seen < oldest:
            found.append(record)
    return found
