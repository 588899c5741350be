# SPDX-License-Identifier: GPL-3.0-or-later
"""Frees in a stream what every group has committed, so that a healthy archive never lets it fill up.

A stream keeps what is behind the lowest floor of its groups, and of what is before it as much as fits into half of its
byte limit, for replays. What a group's floor is, and which groups count, is decided by pure functions.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Callable

from .jetstream import JetStream, nanoseconds
from .ledger import Ledger

INTERVAL = 5.0
"""Seconds between two looks, and how long a new group waits before it reads: by then everybody has seen it."""
# Behind it the group's name: when it was forgotten, in ns since 1970. docs/durable.md.
FORGOTTEN = "shipper-forgotten-"
_PURGES_MOST = 4
_QUIET_SECONDS = 10.0
# What a message has beside its payload, generously.
_MESSAGE_ROOM = 64 * 1024

Floors = dict[str, tuple[int, int]]
"""For each group its floor, and when it was seen (ns)."""


def floor_of(consumer: Mapping[str, Any]) -> int:
    """The sequence up to which a durable has acknowledged everything.

    Before 2.14 a durable that was made to begin at a sequence shows an ack_floor of 0 until its first acknowledgement;
    where nothing is pending, what was delivered is acknowledged.
    """
    state = "ack_floor" if consumer["num_ack_pending"] else "delivered"
    return int(consumer[state]["stream_seq"])


def durables(consumers: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The groups that are visible on a stream: its durable consumers."""
    return {each["name"]: each for each in consumers if each["config"].get("durable_name")}


def merge_floors(
    remembered: Floors, consumers: Iterable[Mapping[str, Any]], metadata: Mapping[str, str] | None, now: int
) -> Floors:
    """All groups that count. One that is not visible, because it is just being made anew or its durable was lost,
    counts with what is remembered, until an operator has it forgotten."""
    merged = {name: (floor_of(consumer), now) for name, consumer in durables(consumers).items()}
    for group, (floor, seen) in remembered.items():
        forgotten = (metadata or {}).get(FORGOTTEN + group, "")
        if group not in merged and not (forgotten.isdigit() and int(forgotten) >= seen):
            merged[group] = (floor, seen)
    return merged


def of_this_past(floors: Floors, last: int) -> Floors:
    """A floor beyond the stream's end is of numbers that the broker has lost and uses a second time: what was read of
    the new ones nobody knows, so it counts as nothing, also when the stream has grown beyond it."""
    return {group: (0 if floor > last else floor, seen) for group, (floor, seen) in floors.items()}


def history_bytes(max_bytes: int, max_payload: int, quiet: float) -> int:
    """How much of a stream may be taken by what everybody has committed: half of it. But where nothing has come for
    some seconds it may be because the largest message does not fit beside that: then there is to be room for it."""
    half = max_bytes // 2
    return half if quiet < _QUIET_SECONDS else max(0, min(half, max_bytes - max_payload - _MESSAGE_ROOM))


def purge_before(state: Mapping[str, Any], history: int, floors: Iterable[int]) -> int | None:
    """The sequence before which messages are to be purged, or None; history is how many bytes may stay.

    The floor's own message is left: a reader begins with it to see that the stream is still the same. Only where it
    alone is more than may stay it goes too, or a small stream could never take a large message. A purge beyond the
    stream's end would delete everything.
    """
    lowest, highest = min(floors, default=0), max(floors, default=0)
    first, last, stored, messages = (int(state[key]) for key in ("first_seq", "last_seq", "bytes", "messages"))
    excess = stored - history
    if excess <= 0 or messages == 0 or highest > last:
        return None
    if messages == 1 and lowest >= last:
        return last + 1
    target = min(lowest, first + -(-excess * messages // stored))
    return target if target > first else None


def _quiet_seconds(info: Mapping[str, Any]) -> float:
    """For how long nothing has come into a stream, by the clock of who stamps its messages."""
    now = nanoseconds(info["ts"]) if "ts" in info else time.time_ns()
    return (now - nanoseconds(info["state"]["last_ts"])) / 1e9


class Trimmer:
    """Trims one stream, on behalf of one group."""

    def __init__(self, ledger: Ledger, stream: str, group: str) -> None:
        self._ledger = ledger
        self._stream = stream
        self._group = group
        # Told which group holds the stream back though no durable shows it.
        self.held_back: Callable[..., None] = lambda *what: None

    async def trim(self, js: JetStream, committed: int, created: str) -> None:
        """Look at the stream, and purge what is due; committed is the own group's floor in the stream that was created
        then. Raises BrokerError and OSError."""
        remembered = self._ledger.floors(self._stream)
        for _turn in range(_PURGES_MOST):
            # A group that does not show, because its consumer's leader does not answer, must not lose its messages.
            consumers = await js.consumers(self._stream, complete=True)
            info = await js.stream_info(self._stream)
            max_bytes = int(info["config"].get("max_bytes", -1))
            if info["created"] != created or max_bytes <= 0:
                return
            now = time.time_ns()
            floors = merge_floors(remembered, consumers, info["config"].get("metadata"), now)
            floors[self._group] = (committed, now)
            floors = of_this_past(floors, int(info["state"]["last_seq"]))
            if floors.keys() != remembered.keys() or any(
                floors[group][0] != remembered[group][0] for group in floors if group != self._group
            ):
                self._ledger.keep_floors(self._stream, floors)
                remembered = floors
            levels = [floor for floor, _seen in floors.values()]
            history = history_bytes(max_bytes, js.link.max_payload, _quiet_seconds(info))
            sequence = purge_before(info["state"], history, levels)
            if sequence is None:
                self._look_who_holds_back(info["state"], history, floors, durables(consumers))
                return
            await js.purge(self._stream, sequence)

    def _look_who_holds_back(
        self, state: Mapping[str, Any], history: int, floors: Floors, visible: Mapping[str, object]
    ) -> None:
        lowest = min(floors, key=lambda group: floors[group][0])
        floor, seen = floors[lowest]
        if int(state["bytes"]) > history and lowest not in visible and lowest != self._group:
            self.held_back(
                "Stream %s is held back by the group %s, which has committed %d and has no durable since %s; start it "
                "again, or `shipper forget --force %s`",
                *(self._stream, lowest, floor, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seen // 10**9)), lowest),
            )
