# SPDX-License-Identifier: GPL-3.0-or-later
"""What a partition's stream should be, how the one that is there differs, and what must not be done about it: pure.

A config is what nats-server calls StreamConfig, as JSON: sizes in bytes, times in ns
(https://docs.nats.io/nats-concepts/jetstream/streams). Only our own fields of it are compared and changed; whatever
else an operator has set (placement, compression, metadata) stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import SettingError, printable
from .jetstream import nanoseconds
from .partition import partition_subject
from .settings import FleetSettings, StreamLimits, partition_stream

Config = dict[str, Any]
Changes = dict[str, tuple[Any, Any]]

SECOND = 1_000_000_000
_MIB = 1024 * 1024
_SIZES = (
    ("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10),
    ("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3),
)  # fmt: skip
_TIMES = (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_UNCHANGED_SHOWN = 10
_SHOWN_WHEN_CREATED = ("max_bytes", "max_age", "num_replicas", "duplicate_window")
# What the server never lets go of again; but for retention, of which it keeps only "workqueue".
_FOR_EVER = (
    "storage", "sealed", "deny_delete", "deny_purge", "allow_msg_ttl", "allow_msg_schedules", "allow_msg_counter",
)  # fmt: skip
# What lets a message do more than be stored: empty a stream, take another subject, expire, hold others up. Servers that
# do not know one refuse it, so it is named only where a stream has it.
_HARMFUL = (
    "allow_rollup_hdrs", "allow_msg_ttl", "allow_msg_schedules", "allow_msg_counter", "allow_atomic", "allow_batched",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What becomes of a stream: found is the server's answer about it, None where there is none; config is what to
    send; changes are (before, after) by field, before being None for a stream that is to be made."""

    stream: str
    partition: int
    found: dict[str, Any] | None
    config: Config
    changes: Changes

    @property
    def action(self) -> str:
        if self.found is None:
            return "created"
        return "updated" if self.changes else "unchanged"


@dataclass(frozen=True)
class Refusal:
    """Why a plan must not be carried out. forceable says that --force may; need orders refusals of one kind, the
    hardest to satisfy being the highest."""

    stream: str
    error: SettingError
    forceable: bool
    need: int = 0


def desired(settings: FleetSettings, limits: StreamLimits, number: int) -> Config:
    """Our fields of a partition's stream."""
    return {
        "name": partition_stream(settings.stream, number),
        "description": "Log lines of partition %d, for logfleet.shipper" % number,
        "subjects": [partition_subject(settings.prefix, number)],
        "storage": "file",
        # Limits alone, and readers that trim: interest and work queues forget messages when a durable is made anew.
        "retention": "limits",
        # A full stream refuses, and the log files are the buffer; "old" would lose lines without a word.
        "discard": "new",
        "num_replicas": limits.replicas,
        "max_bytes": limits.max_bytes,
        "max_age": limits.max_age * SECOND,
        "duplicate_window": limits.duplicates * SECOND,
        "allow_direct": True,
        # Readers purge what everybody has.
        "sealed": False,
        "deny_delete": False,
        "deny_purge": False,
    }


def difference(found: Config | None, wanted: Config) -> Changes:
    """(before, after) of each wanted field that the found config has otherwise.

    A field that the server leaves out is empty, zero or false.
    """
    if found is None:
        return {field: (None, after) for field, after in wanted.items() if field != "name"}
    changes = {}
    for field, after in wanted.items():
        before = found.get(field)
        before = type(after)() if before is None else before
        if before != after:
            changes[field] = (before, after)
    return changes


def plan(settings: FleetSettings, limits: StreamLimits, number: int, found: dict[str, Any] | None) -> Plan:
    """What to do about a partition's stream of which the server says this, or None where it has none."""
    wanted = desired(settings, limits, number)
    config = None if found is None else found["config"]
    wanted.update((field, False) for field in _HARMFUL if config and config.get(field))
    return Plan(wanted["name"], number, found, {**(config or {}), **wanted}, difference(config, wanted))


def takes_a_subject(the_plan: Plan) -> bool:
    """Whether another stream could have the subject: the server sees to it that two never share one."""
    return "subjects" in the_plan.changes


def refusals(settings: FleetSettings, the_plan: Plan, others: Sequence[str], now: int) -> list[Refusal]:
    """Why this must not be done; others are the streams that have its subject besides itself, now is in ns."""
    found = the_plan.found
    reasons = [_taken(settings, the_plan, others[0])] if others else []
    if found is None:
        return reasons
    for field, (before, after) in the_plan.changes.items():
        if field in _FOR_EVER or (field, before) == ("retention", "workqueue"):
            reasons.append(_cannot_change(settings, the_plan, field, before))
        elif field == "retention":
            reasons.append(_retention(settings, the_plan, before))
        elif field == "subjects":
            reasons.append(_subjects(settings, the_plan, before))
        elif field == "max_bytes" and after < found["state"]["bytes"] and (before <= 0 or after < before):
            reasons.append(_too_small(the_plan.stream, after, found["state"]["bytes"]))
        elif field == "max_age" and after > 0 and found["state"]["messages"] and (before <= 0 or after < before):
            age = now - nanoseconds(found["state"]["first_ts"])
            if age > after:
                reasons.append(_too_short(the_plan.stream, after, age))
    return reasons


def refused(reasons: Sequence[Refusal], force: bool) -> SettingError | None:
    """The one line of why nothing is done, or None where it may be: the worst reason, and how many streams have one."""
    counted = [reason for reason in reasons if not (force and reason.forceable)]
    if not counted:
        return None
    worst = max(counted, key=lambda reason: (not reason.forceable, reason.need))
    more = len({reason.stream for reason in counted}) - 1
    if not more:
        return worst.error
    also = "%d other stream%s" % (more, "" if more == 1 else "s")
    return SettingError(worst.error.variable, worst.error.value, "%s (and so with %s)" % (worst.error.remedy, also))


def _taken(settings: FleetSettings, the_plan: Plan, other: str) -> Refusal:
    subject = partition_subject(settings.prefix, the_plan.partition)
    mine = "-p%d" % the_plan.partition
    hint = " (or is SHIPPER_STREAM=%s meant?)" % other[: -len(mine)] if other.endswith(mine) else ""
    remedy = "stream %s takes messages of %s already, and only one can: use another subject, or delete it: %s%s" % (
        printable(other), subject, _delete(other), hint,
    )  # fmt: skip
    return Refusal(the_plan.stream, SettingError("SHIPPER_SUBJECT", settings.prefix, remedy), forceable=False)


def _cannot_change(settings: FleetSettings, the_plan: Plan, field: str, before: Any) -> Refusal:
    remedy = "stream %s has %s %s, which cannot be changed: use another name, or delete it with all in it: %s" % (
        the_plan.stream, field, readable(field, before), _delete(the_plan.stream),
    )  # fmt: skip
    return Refusal(the_plan.stream, SettingError("SHIPPER_STREAM", settings.stream, remedy), forceable=False)


def _retention(settings: FleetSettings, the_plan: Plan, before: Any) -> Refusal:
    remedy = "stream %s has retention %s and was made for something else: delete it: %s; or change it with --force" % (
        the_plan.stream, readable("retention", before), _delete(the_plan.stream),
    )  # fmt: skip
    return Refusal(the_plan.stream, SettingError("SHIPPER_STREAM", settings.stream, remedy), forceable=True)


def _subjects(settings: FleetSettings, the_plan: Plan, before: Any) -> Refusal:
    assert the_plan.found is not None
    if the_plan.found["config"].get("mirror"):
        return _cannot_change(settings, the_plan, "mirror", the_plan.found["config"]["mirror"].get("name", ""))
    remedy = "stream %s is there with subjects %s, not %s: use another name, or have it changed with --force" % (
        the_plan.stream, readable("subjects", before), partition_subject(settings.prefix, the_plan.partition),
    )  # fmt: skip
    return Refusal(the_plan.stream, SettingError("SHIPPER_STREAM", settings.stream, remedy), forceable=True)


def _too_small(stream: str, after: int, stored: int) -> Refusal:
    remedy = "stream %s stores more than that and would take nothing: use %s or more, or --force" % (
        stream, size(-(-stored // _MIB) * _MIB),
    )  # fmt: skip
    return Refusal(stream, SettingError("SHIPPER_STREAM_MAX_BYTES", size(after), remedy), forceable=True, need=stored)


def _too_short(stream: str, after: int, age: int) -> Refusal:
    remedy = "stream %s holds older messages, which would be deleted: use %s or more, or 0, or --force" % (
        stream, least_time(age),
    )  # fmt: skip
    error = SettingError("SHIPPER_STREAM_MAX_AGE", readable("max_age", after), remedy)
    return Refusal(stream, error, forceable=True, need=age)


def _delete(stream: str) -> str:
    return "nats stream rm %s" % printable(stream)


def readable(field: str, value: Any) -> str:
    """A field's value for people, on one line: sizes and times as the settings take them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(printable(str(item)) for item in value) or "none"
    if field == "max_bytes":
        return size(value) if value > 0 else "unlimited"
    if field in ("max_age", "duplicate_window"):
        return _time(value) if value > 0 else "none"
    return printable(str(value))


def size(count: int) -> str:
    """So many bytes, exactly, in the largest unit that has them whole."""
    for unit, factor in _SIZES:
        if count and count % factor == 0:
            return "%d%s" % (count // factor, unit)
    return "%dB" % count


def least_time(ns: int) -> str:
    """The shortest time that is at least so long and easily said: two units or more of its kind."""
    seconds = max(-(-ns // SECOND), 1)
    for unit, factor in _TIMES:
        if seconds >= 2 * factor:
            return "%d%s" % (-(-seconds // factor), unit)
    return "%ds" % seconds


def _time(ns: int) -> str:
    for unit, factor in _TIMES:
        if ns % (factor * SECOND) == 0:
            return "%d%s" % (ns // (factor * SECOND), unit)
    return "%gs" % (ns / SECOND)


def told(plans: Sequence[Plan], dry_run: bool = False) -> list[str]:
    """What was done, or would be, a line a stream; many that are unchanged share one."""
    lines = []
    would = "would be " if dry_run else ""
    unchanged = [the_plan.stream for the_plan in plans if the_plan.action == "unchanged"]
    for the_plan in plans:
        if the_plan.action == "created":
            limits = ", ".join("%s %s" % (f, readable(f, the_plan.config[f])) for f in _SHOWN_WHEN_CREATED)
            subjects = readable("subjects", the_plan.config["subjects"])
            lines.append("%screated %s on %s: %s" % (would, the_plan.stream, subjects, limits))
        elif the_plan.action == "updated":
            changes = ", ".join(_change(*c) for c in the_plan.changes.items())
            lines.append("%supdated %s: %s" % (would, the_plan.stream, changes))
        elif len(unchanged) <= _UNCHANGED_SHOWN:
            lines.append("unchanged %s" % the_plan.stream)
    if len(unchanged) > _UNCHANGED_SHOWN:
        lines.append("unchanged: %d of %d streams" % (len(unchanged), len(plans)))
    return lines


def rows(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """What was done, for machines: the values as the server has them, and as people read them; a stream that was made
    has null before each of our fields."""
    return [
        {
            "stream": the_plan.stream,
            "partition": the_plan.partition,
            "action": the_plan.action,
            "changes": {field: list(pair) for field, pair in the_plan.changes.items()},
            "readable": {
                field: [None if value is None else readable(field, value) for value in pair]
                for field, pair in the_plan.changes.items()
            },
        }
        for the_plan in plans
    ]


def _change(field: str, pair: tuple[Any, Any]) -> str:
    return "%s: %s -> %s" % (field, readable(field, pair[0]), readable(field, pair[1]))
