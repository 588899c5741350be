# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet's state looks like to an operator: lines, and what is wrong with it. Pure; used on the controller only.

state is what the module fleet_state returned from the broker, archives what it returned on each archive host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .identities import named
from .tables import size, span, table

_ROWS_SHOWN = 50
State = Mapping[str, Any]


@dataclass
class Report:
    """lines are to be printed; problems are sentences, and there are none where all is well."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def report(state: State, archives: Mapping[str, State], silent_after: str, seconds: float) -> Report:
    """seconds is what silent_after says. An archive host that could not be asked has no state of its own."""
    made = Report()
    if not state["partitions"] and state.get("msg"):
        # Check mode, on hosts that have nothing yet.
        made.lines.append(str(state["msg"]))
        return made
    _partitions(made, state["partitions"])
    _hosts(made, state, silent_after, seconds)
    _holes(made, archives)
    for host, archive in sorted(archives.items()):
        if "holes" not in archive:
            made.problems.append("the archive host %s cannot be asked: %s" % (host, archive.get("msg") or "no answer"))
    made.lines += ["", *(made.problems or ["all is well"])]
    return made


def _partitions(made: Report, partitions: Sequence[State]) -> None:
    rows = []
    for entry in partitions:
        groups = entry["groups"] or {"-": {}}
        note = _note(made, entry)
        for group, values in sorted(groups.items()):
            rows.append(
                (
                    str(entry["partition"]), group, values.get("owner") or "-", _number(values.get("lag_messages")),
                    span(values.get("lag_seconds")), size(entry["bytes"]), size(entry["max_bytes"]),
                    span(values.get("last_commit_seconds"), " ago"),
                    ", ".join(entry["held_back_by"]) or "-", note,
                )
            )  # fmt: skip
            if group != "-" and not values["owner"]:
                made.problems.append("partition %d has no owner in the group %s" % (entry["partition"], group))
    head = ("PARTITION", "GROUP", "OWNER", "LAG", "AGE", "STORED", "LIMIT", "COMMITTED", "HELD BACK BY", "NOTE")
    made.lines += table(head, rows, right=(0, 3, 4, 5, 6, 7)).splitlines()


def _note(made: Report, entry: State) -> str:
    notes = [entry["problem"]] if entry["problem"] else []
    if entry["full"]:
        notes.append("full")
    if entry["broker_full"]:
        notes.append("broker full")
    made.problems += ["partition %d: %s" % (entry["partition"], note) for note in notes]
    if entry["held_back_by"]:
        text = "partition %d is held back by %s: start it, or forget it with `shipper forget`"
        made.problems.append(text % (entry["partition"], " and ".join(entry["held_back_by"])))
    return ", ".join(notes)


def _hosts(made: Report, state: State, silent_after: str, seconds: float) -> None:
    silent, unexpected = state["silent"], state["unexpected"]
    rows = [(row["host"], "silent", _seen(row)) for row in silent]
    rows += [(row["host"], "not in the inventory", _seen(row)) for row in unexpected]
    if rows:
        made.lines += ["", *table(("HOST", "", "LAST SEEN"), rows[:_ROWS_SHOWN], right=(2,)).splitlines()]
        if len(rows) > _ROWS_SHOWN:
            made.lines.append("and %d more" % (len(rows) - _ROWS_SHOWN))
    never = [row["host"] for row in silent if row["last_seen_seconds"] is None]
    once = [row["host"] for row in silent if row["last_seen_seconds"] is not None]
    if once:
        made.problems.append("nothing has come for %s from %s" % (silent_after, named(once)))
    if never:
        made.problems.append("nothing that anybody remembers has ever come from %s" % named(never))
    # One that was taken from the inventory is told, for as long as a stream holds messages of it, and no fault.
    strangers = [row["host"] for row in unexpected if row["last_seen_seconds"] <= seconds]
    if strangers:
        made.problems.append("not in the inventory, and shipping: %s" % named(strangers))


def _holes(made: Report, archives: Mapping[str, State]) -> None:
    rows = []
    for archive, state in sorted(archives.items()):
        for hole in state.get("holes", ()):
            what = "bytes of %s" % hole["source"] if hole["host"] else "messages"
            rows.append(
                (archive, hole["stream"], hole["host"] or "-", "%d to %d" % (hole["first"], hole["last"] - 1), what,
                 span(hole["seconds"], " ago"))
            )  # fmt: skip
    if rows:
        head = ("ARCHIVE", "STREAM", "HOST", "MISSING", "OF", "FOUND")
        made.lines += ["", *table(head, rows[-_ROWS_SHOWN:], right=(5,)).splitlines()]
        made.problems.append("lines were published and never came, see above; known holes: %d" % len(rows))


def _seen(row: State) -> str:
    seconds = row["last_seen_seconds"]
    return "never" if seconds is None else span(seconds, " ago")


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
