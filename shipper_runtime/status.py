# SPDX-License-Identifier: GPL-3.0-or-later
"""``shipper status``: how far each partition is committed, group by group; or how far each host is.

What is asked of the broker is at the end; what is made of its answers is pure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Callable, TypeVar

from .broker import connected
from .errors import ApiError, BrokerError, NoAnswer, NoResponders, PublishRefused, WireError, printable
from .jetstream import STREAM_NOT_FOUND, JetStream, nanoseconds, place
from .onlooker import onlooker
from .ownership import OWNER, OWNER_HOST
from .partition import partition_subject
from .permissions import ADMIN_INBOX
from .settings import FleetSettings, partition_stream
from .tables import size, span, table
from .terminal import put, put_error
from .trim import durables, floor_of
from .wire import subject_host

CONCURRENT = 16
NO_STREAM = "no stream"
NO_GROUP = "no group"

# Above this share of its limit a stream is trimmed (docs/durable.md).
_HIGH_WATER = 0.5
# What a producer sends in one message at most, in a file store that counts headers and its own too.
_LARGEST_MESSAGE = 516 * 1024
# A small stream is not called full at half its size for that, and a group that is only a moment behind not guilty.
_LEAST_SHARE = 1 / 16
_QUIET = 2.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class Row:
    """A partition as one group has it. None is what is not known or does not exist.

    lag_messages are those that the group has not committed, lag_seconds is the age of the oldest of them;
    last_commit_seconds is how long ago something was committed. full means that the stream refuses, or will refuse
    the next large message; broker_full the same of all that this account may store. problem is said in words.
    """

    partition: int
    stream: str
    group: str | None = None
    owner: str | None = None
    released: bool = False
    lag_messages: int | None = None
    lag_seconds: float | None = None
    bytes: int | None = None
    max_bytes: int | None = None
    full: bool = False
    holds_back: bool = False
    last_commit_seconds: float | None = None
    broker_full: bool | None = None
    problem: str | None = None


@dataclass(frozen=True)
class HostRow:
    """The last message that the stream has of a host: its sequence, and how long ago it was stored. behind says of each
    group how many messages of the partition lie between what it has committed and this one, which is 0 when it has
    committed it; committed is None where there is no group."""

    host: str
    partition: int
    sequence: int
    committed: bool | None
    behind: dict[str, int] = field(default_factory=dict)
    last_seen_seconds: float = 0.0


@dataclass(frozen=True)
class Groups:
    """A stream and its groups, as the API has them; stamps is when the first message behind each group's floor was
    stored (ns), for those that are behind."""

    info: dict[str, Any]
    groups: list[Mapping[str, Any]]
    stamps: dict[str, int | None] = field(default_factory=dict)


def floor(group: Mapping[str, Any]) -> int:
    """The sequence up to which a group has committed all: for trimming, but that what lies before a consumer's own
    beginning is committed too. Before 2.14 that is not in its floor until the first acknowledgement."""
    return max(floor_of(group), int(group["config"].get("opt_start_seq", 0)) - 1)


def lag(group: Mapping[str, Any]) -> int:
    """How many messages a group has not committed."""
    return int(group["num_pending"]) + int(group["num_ack_pending"])


def no_room_at_all(account: dict[str, Any]) -> bool | None:
    """Whether the account has stored as much as it may; None where its limits say nothing, as without accounts."""
    limited = [
        (int(tier["storage"]), int(tier["limits"]["max_storage"]))
        for tier in (account, *(account.get("tiers") or {}).values())
        if int((tier.get("limits") or {}).get("max_storage", -1)) > 0
    ]
    return any(_full(used, limit) for used, limit in limited) if limited else None


def partition_rows(number: int, stream: str, found: Groups | str, broker_full: bool | None, now: int) -> list[Row]:
    """The rows of one partition; found is what the broker has, or in words why that is not known. now is in ns, and
    counts only where the answer does not hold the broker's own time."""
    if isinstance(found, str):
        return [Row(number, stream, broker_full=broker_full, problem=found)]
    state, config = found.info["state"], found.info["config"]
    now = _time_of(found.info, now)
    stored = int(state["bytes"])
    limit = int(config["max_bytes"]) if int(config.get("max_bytes", -1)) > 0 else None
    average = stored / max(int(state["messages"]), 1)
    full = limit is not None and _full(stored, limit, average)
    common = Row(number, stream, bytes=stored, max_bytes=limit, full=full, broker_full=broker_full)
    if not found.groups:
        return [replace(common, problem=NO_GROUP)]
    above = limit is not None and stored > limit * _HIGH_WATER
    lowest = min(floor(group) for group in found.groups)
    rows = []
    for group in found.groups:
        metadata = group["config"].get("metadata") or {}
        behind = lag(group)
        stamp = found.stamps.get(group["name"])
        committed_at = group["ack_floor"].get("last_active")
        # A healthy stream stands near its high water, with readers a moment behind.
        held = full or (limit is not None and behind * average > limit * _LEAST_SHARE)
        row = replace(
            common,
            group=str(group["name"]),
            owner=metadata.get(OWNER_HOST) if OWNER in metadata else None,
            released=OWNER not in metadata,
            lag_messages=behind,
            lag_seconds=0.0 if behind == 0 else None if stamp is None else _age(now, stamp),
            holds_back=above and held and behind > 0 and floor(group) == lowest,
            last_commit_seconds=_age(now, nanoseconds(committed_at)) if committed_at else None,
        )
        rows.append(row)
    return rows


def host_rows(number: int, last: dict[str, tuple[int, int]], found: Groups, now: int) -> list[HostRow]:
    """The rows of one partition's hosts; last has the sequence and stamp (ns) of each host's last message."""
    now = _time_of(found.info, now)
    rows = []
    for host, (sequence, stamp) in sorted(last.items()):
        behind = {str(group["name"]): max(0, sequence - floor(group)) for group in found.groups}
        committed = not any(behind.values()) if behind else None
        rows.append(HostRow(host, number, sequence, committed, behind, _age(now, stamp)))
    return rows


def partition_table(rows: Sequence[Row]) -> str:
    """The rows as text; "-" is what is not known or does not exist."""
    head = ("PARTITION", "STREAM", "GROUP", "OWNER", "LAG", "AGE", "STORED", "LIMIT", "COMMITTED", "NOTE")
    return table(
        head,
        [
            (
                str(row.partition), row.stream, _text(row.group), _text(row.owner), _text(row.lag_messages),
                span(row.lag_seconds), size(row.bytes), size(row.max_bytes), span(row.last_commit_seconds, " ago"),
                _note(row),
            )
            for row in rows
        ],
        right=(0, 4, 5, 6, 7, 8),
    )  # fmt: skip


def host_table(rows: Sequence[HostRow]) -> str:
    """The rows as text."""
    return table(
        ("HOST", "PARTITION", "SEQUENCE", "SEEN", "COMMITTED"),
        [
            (row.host, str(row.partition), str(row.sequence), span(row.last_seen_seconds, " ago"), _committed(row))
            for row in rows
        ],
        right=(1, 2, 3),
    )


def _note(row: Row) -> str:
    notes = []
    if row.problem == NO_STREAM:
        notes.append("no stream: run shipper streams")
    elif row.problem == NO_GROUP:
        notes.append("no group: nobody reads it")
    elif row.problem is not None:
        notes.append(row.problem)
    if row.released:
        notes.append("released")
    if row.full:
        notes.append("full")
    if row.holds_back:
        notes.append("holds back")
    if row.broker_full:
        notes.append("broker full")
    return ", ".join(notes)


def _committed(row: HostRow) -> str:
    if row.committed is None:
        return "- (no group)"
    late = ["%s %d behind" % (printable(group), behind) for group, behind in sorted(row.behind.items()) if behind]
    return "no: " + ", ".join(late) if late else "yes"


def _full(used: int, limit: int, average: float = 0.0) -> bool:
    return limit - used < max(average, min(_LARGEST_MESSAGE, limit * _LEAST_SHARE))


def _time_of(info: dict[str, Any], now: int) -> int:
    # The broker's own time, so that a clock of ours that is wrong does not look like lag.
    return nanoseconds(info["ts"]) if info.get("ts") else now


def _age(now: int, stamp: int) -> float:
    return max(0, now - stamp) / 1e9


def _text(value: str | int | None) -> str:
    return "-" if value is None else printable(str(value))


async def run(settings: FleetSettings, *, hosts: bool, as_json: bool) -> None:
    """Ask and print. A partition that cannot be asked is a row that says so; a broker that cannot is a BrokerError."""
    async with connected(settings.broker, "shipper status", ADMIN_INBOX) as link:
        api = JetStream(link)
        # The first question: what is wrong with all of JetStream is said once, and not of each partition.
        broker_full = await _broker_full(api)
        if hosts:
            _print_hosts(await _bounded([_hosts(api, settings, number) for number in settings.numbers]), as_json)
        else:
            work = [_partition(api, settings, number, broker_full) for number in settings.numbers]
            rows = [row for found in await _bounded(work) for row in found]
            put(_json(rows) if as_json else partition_table(rows))


async def _broker_full(api: JetStream) -> bool | None:
    try:
        return no_room_at_all(await api.account_info())
    except PublishRefused:
        # Who may look at the streams need not be permitted to look at the account.
        return None


def _print_hosts(found: Iterable[tuple[list[HostRow], str]], as_json: bool) -> None:
    rows = []
    for of_partition, problem in found:
        rows += of_partition
        if problem:
            put_error(problem)
    rows.sort(key=lambda row: (row.host, row.partition))
    put(_json(rows) if as_json else host_table(rows))


def _json(rows: Sequence[Row | HostRow]) -> str:
    return json.dumps([asdict(row) for row in rows], indent=2) + "\n"


def _partition(
    api: JetStream, settings: FleetSettings, number: int, broker_full: bool | None
) -> Callable[[], Awaitable[list[Row]]]:
    async def ask() -> list[Row]:
        stream = partition_stream(settings.stream, number)
        found: Groups | str
        try:
            found = await _groups(api, stream)
            for group in found.groups:
                if lag(group):
                    found.stamps[group["name"]] = await api.message_stamp(stream, floor(group) + 1)
        except (ApiError, NoAnswer, NoResponders) as error:
            found = _why(error)
        return partition_rows(number, stream, found, broker_full, time.time_ns())

    return ask


def _hosts(api: JetStream, settings: FleetSettings, number: int) -> Callable[[], Awaitable[tuple[list[HostRow], str]]]:
    async def ask() -> tuple[list[HostRow], str]:
        stream = partition_stream(settings.stream, number)
        try:
            last = await _last_messages(api, stream, settings.prefix, number)
            # Behind the messages, so that what was committed meanwhile counts as committed.
            return host_rows(number, last, await _groups(api, stream), time.time_ns()), ""
        except (ApiError, NoAnswer, NoResponders) as error:
            return [], "partition %d, %s: %s" % (number, stream, _why(error))

    return ask


async def _groups(api: JetStream, stream: str) -> Groups:
    found = durables(await api.consumers(stream))
    return Groups(await api.stream_info(stream), [found[name] for name in sorted(found)])


async def _last_messages(api: JetStream, stream: str, prefix: str, number: int) -> dict[str, tuple[int, int]]:
    """Sequence and stamp of each host's last message. Without the payloads: those would be half a MiB for each host."""
    last: dict[str, tuple[int, int]] = {}
    end = int((await api.stream_info(stream))["state"]["last_seq"])
    begin = {"deliver_policy": "last_per_subject"}
    subject, begin = partition_subject(prefix, number), {"deliver_policy": "last_per_subject"}
    async with onlooker(api, stream, subject, begin, headers_only=True) as look:
        left = look.at_start
        while left:
            messages = await look.pull.messages(_QUIET)
            if not messages:
                # Trimmed away meanwhile, or a slow broker.
                left = await look.left()
            for msg in messages:
                where = place(msg.reply)
                if where is None:
                    continue
                # What is no host's is left out.
                with contextlib.suppress(WireError):
                    last[subject_host(prefix, number, msg.subject)] = (where.sequence, where.stamp)
                # Behind the stream's end new messages follow, as fast as they are written.
                left = 0 if where.sequence >= end else where.pending
    return last


def _why(error: BrokerError) -> str:
    missing = isinstance(error, ApiError) and error.err_code == STREAM_NOT_FOUND
    return NO_STREAM if missing else str(error)


async def _bounded(work: Iterable[Callable[[], Awaitable[_T]]]) -> list[_T]:
    """The results in order, so many at a time. Raises the first error when all have ended."""
    turns = asyncio.Semaphore(CONCURRENT)

    async def one(ask: Callable[[], Awaitable[_T]]) -> _T:
        async with turns:
            return await ask()

    results = await asyncio.gather(*(one(ask) for ask in work), return_exceptions=True)
    return [_result(result) for result in results]


def _result(result: _T | BaseException) -> _T:
    if isinstance(result, BaseException):
        raise result
    return result
