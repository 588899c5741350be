# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the program's answers say about a fleet: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_DURATION = re.compile(r"([0-9]{1,9})([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_OF_STREAM = ("bytes", "max_bytes", "full", "broker_full", "problem")
_OF_GROUP = ("owner", "released", "lag_messages", "lag_seconds", "last_commit_seconds")


def duration(text: str) -> int:
    """Seconds. Raises ValueError with a sentence's end."""
    match = _DURATION.match(text)
    if match is None:
        raise ValueError("use a whole number and one of s, m, h, d, w, such as 1h")
    return int(match.group(1)) * _SECONDS[match.group(2)]


def partitions(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of shipper status, of which each has a partition and one of its groups, as one entry a partition."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        entry = found.setdefault(
            row["partition"],
            {
                "partition": row["partition"],
                "stream": row["stream"],
                **{name: row[name] for name in _OF_STREAM},
                "held_back_by": [],
                "groups": {},
            },
        )
        if row["group"] is not None:
            entry["groups"][row["group"]] = {name: row[name] for name in _OF_GROUP}
            if row["holds_back"]:
                entry["held_back_by"].append(row["group"])
    return [found[number] for number in sorted(found)]


def last_seen(hosts: Iterable[Mapping[str, Any]], *memories: Mapping[str, float]) -> dict[str, float]:
    """How many seconds ago each host was seen, by whoever saw it last: the streams or any archive."""
    seen: dict[str, float] = {}
    sightings = [(row["host"], row["last_seen_seconds"]) for row in hosts]
    for memory in memories:
        sightings += list(memory.items())
    for host, seconds in sightings:
        seen[host] = min(seconds, seen.get(host, seconds))
    return seen


def silent(expected: Iterable[str], seen: Mapping[str, float], after: float) -> list[dict[str, Any]]:
    """The hosts that should ship and have not for so many seconds, or are not remembered at all."""
    found = []
    for host in sorted(set(expected)):
        seconds = seen.get(host)
        if seconds is None or seconds > after:
            found.append({"host": host, "last_seen_seconds": seconds})
    return found


def unexpected(expected: Iterable[str], hosts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The hosts of which the streams hold messages, and that are not among those that should ship."""
    known = set(expected)
    seen: dict[str, float] = {}
    for row in hosts:
        if row["host"] not in known:
            seen[row["host"]] = min(row["last_seen_seconds"], seen.get(row["host"], row["last_seen_seconds"]))
    return [{"host": host, "last_seen_seconds": seen[host]} for host in sorted(seen)]
