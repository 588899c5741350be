# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits until everything that was written is archived, and says what is wrong if it is not."""

from __future__ import annotations

import contextlib
import time
from collections import Counter

from .compare import PACKED, Checker, Diagnosis, Look, by_source, list_archive
from .schedule import GROUPS
from .world import PromiseBroken, World

SETTLE_SECONDS = 60.0
"""For how long it is waited for what is missing."""
QUIET_SECONDS = 10.0
"""For how long what is wrong, not only missing, has to stay as it is to count."""
WRONG = ("lost", "doubled", "foreign", "out of order")
_LOOK_SECONDS = 0.1


class Judge:
    """Compares both archives with what was written, and with each other.

    wrong counts the bytes of what was found wrong, by WRONG.
    """

    def __init__(self, world: World, seconds: float = SETTLE_SECONDS, quiet: float = QUIET_SECONDS) -> None:
        self.wrong: Counter[str] = Counter()
        self._world = world
        self._seconds = seconds
        self._quiet = quiet
        self._checkers = {
            (group, source): Checker(world.directory(group), writer.truth)
            for group in GROUPS
            for source, writer in world.writers.items()
        }

    def settle(self, thorough: bool = False) -> float:
        """How many seconds it took until all was archived; the writers hold. Raises PromiseBroken.

        thorough reads everything again, not only what has changed.
        """
        if thorough:
            for checker in self._checkers.values():
                checker.forget()
        began = time.monotonic()
        before: dict[str, dict[str, Look]] = {}
        changed = began
        while True:
            self._world.check()
            now = time.monotonic()
            looks = {group: list_archive(self._world.directory(group)) for group in GROUPS}
            changed = now if looks != before else changed
            before = looks
            states, complaints = self._compare(looks)
            if not complaints:
                return now - began
            short = all(state != "wrong" for state in states.values()) and "short" in states.values()
            if now - began > self._seconds or (not short and now - changed > self._quiet):
                raise PromiseBroken("\n".join(complaints + self._diagnose(looks, states)))
            time.sleep(_LOOK_SECONDS)

    def _compare(self, looks: dict[str, dict[str, Look]]) -> tuple[dict[tuple[str, str], str], list[str]]:
        """The state of each group's sources, and what is wrong in a few words."""
        states = {}
        complaints = []
        names = {group: by_source(looks[group]) for group in GROUPS}
        for (group, source), checker in self._checkers.items():
            files = names[group].pop(self._world.archive_name(source), [])
            state = checker.compare(files, looks[group], self._world.writers[source].length)
            states[group, source] = state
            if state != "equal":
                complaints.append("group %s, %s: %s" % (group, source, state))
        for group in GROUPS:
            complaints += ["group %s: %s is of no source" % (group, name) for name in names[group]]
        if not complaints and not self._world.core:
            complaints = _differences(self._sizes())
        return states, complaints

    def _sizes(self) -> dict[str, dict[str, int]]:
        """How much each file of each group holds, by its name without what says that it is compressed."""
        sizes: dict[str, dict[str, int]] = {group: {} for group in GROUPS}
        for (group, _source), checker in self._checkers.items():
            for name, right in checker.right.items():
                sizes[group][name.removesuffix(PACKED)] = right.size
        return sizes

    def _diagnose(self, looks: dict[str, dict[str, Look]], states: dict[tuple[str, str], str]) -> list[str]:
        found = []
        self.wrong.clear()
        for (group, source), state in states.items():
            files = by_source(looks[group]).get(self._world.archive_name(source), [])
            diagnosis: Diagnosis | None = None
            with contextlib.suppress(FileNotFoundError):
                diagnosis = self._checkers[group, source].diagnose(files) if state != "equal" else None
            if diagnosis is not None:
                counts = (diagnosis.missing, diagnosis.doubled, diagnosis.foreign, diagnosis.moved)
                self.wrong.update({what: size for what, (_lines, size) in zip(WRONG, counts)})
                found.append("group %s, host %s, source %s: %s" % (group, *source.split("/"), diagnosis))
        return found


def _differences(sizes: dict[str, dict[str, int]]) -> list[str]:
    """Both groups read from the same message on: the same names, and as each is right as a whole, sizes tell."""
    first, second = (sizes[group] for group in GROUPS)
    return [
        "%s has %s bytes in group %s, %s in group %s"
        % (name, first.get(name, "no"), GROUPS[0], second.get(name, "no"), GROUPS[1])
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    ]
