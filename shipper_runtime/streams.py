# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands ``streams`` and ``forget``: the broker is asked, streamplan.py decides, the broker is told.

All streams are looked at before the first one is changed, so that a refusal leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from .broker import Link, check_broker, connected
from .errors import (
    ApiError,
    BrokerError,
    ConnectionLost,
    NoAnswer,
    NoResponders,
    PublishRefused,
    SettingError,
    ShipperError,
    printable,
)
from .jetstream import (
    CONSUMER_NOT_FOUND,
    NO_ROOM,
    NOT_ENABLED,
    OLDEST_SERVER,
    STREAM_NOT_FOUND,
    JetStream,
    nanoseconds,
)
from .ownership import OWNER_HOST
from .permissions import ADMIN_INBOX
from .settings import FleetSettings, StreamLimits, partition_stream
from .streamplan import Config, Plan, Refusal, plan, refusals, refused, rows, size, takes_a_subject, told
from .terminal import put
from .trim import FORGOTTEN

_AT_ONCE = 16
# A stream on several servers takes its time to be made.
_TIMEOUT = 20.0
_ASK_AGAIN = 2.0
# So long the servers of a cluster may take to see each other, once it has a leader.
_PEERS_SECONDS = 10.0
_ACCOUNT_FULL = (10002, 10028)
_NO_LEADER = 10008
_NO_PEERS = 10005
_NOT_CLUSTERED = 10074

Item = TypeVar("Item")
Result = TypeVar("Result")


def check(settings: FleetSettings) -> None:
    """Look at the files that the settings name; no broker is asked. Raises SettingError."""
    check_broker(settings.broker)


async def run(settings: FleetSettings, limits: StreamLimits, *, force: bool, dry_run: bool, as_json: bool) -> None:
    """Have each partition's stream as the settings say, and print what was done.

    Raises SettingError where something must not be done, and then nothing was; BrokerError, and SettingError where the
    broker has no room, after what could be done was done and printed.
    """
    async with _jetstream(settings) as jetstream:
        plans = await _plans(jetstream, settings, limits, force)
        if dry_run:
            _print(plans, as_json, dry_run)
            return
        done: list[Plan] = []
        try:
            # One after the other: of several at a time the server checks each against the room that there is without
            # the others, and promises more than its disk has (ran: 60 of 50 MB).
            for the_plan in plans:
                await _apply(jetstream, the_plan, limits)
                done.append(the_plan)
        finally:
            _print(done, as_json, dry_run)


async def forget(settings: FleetSettings, group: str, *, force: bool, as_json: bool) -> None:
    """Let the streams go on without a group: its durables are deleted, and each stream says since when.

    Raises SettingError, and then nothing was changed, where the group still runs, or no stream knows it and it is not
    forced: then only archives may remember it.
    """

    async def look(number: int) -> _Seen | None:
        return await _look(jetstream, partition_stream(settings.stream, number), group)

    async def leave(seen: _Seen) -> None:
        await _leave(jetstream, seen, group)

    async with _jetstream(settings) as jetstream:
        there = [seen for seen in await _concurrently(look, settings.numbers) if seen is not None]
        problem = _not_to_be_forgotten(settings, group, there, force)
        if problem is not None:
            raise problem
        await _concurrently(leave, there)
        deleted = [(seen.stream, seen.durable) for seen in there if seen.durable is not None]
        if as_json:
            positions = [
                {"stream": stream, "host": _owner(durable), "not_read": durable.get("num_pending", 0)}
                for stream, durable in deleted
            ]
            put(json.dumps({"group": group, "streams": [seen.stream for seen in there], "deleted": positions}))
            return
        for stream, durable in deleted:
            put("%s: deleted the position of %s, %s" % (stream, group, _whereabouts(durable)))
        put("%s is forgotten on %d stream%s" % (group, len(there), "" if len(there) == 1 else "s"))


async def _plans(jetstream: JetStream, settings: FleetSettings, limits: StreamLimits, force: bool) -> list[Plan]:
    async def look(number: int) -> tuple[Plan, list[Refusal]]:
        found = await _info(jetstream, partition_stream(settings.stream, number))
        the_plan = plan(settings, limits, number, found)
        others = []
        if takes_a_subject(the_plan):
            others = await jetstream.streams_of(the_plan.config["subjects"][0])
        # Ages are told by the clock that stamped the messages, where the server says what it shows.
        now = nanoseconds(found["ts"]) if found and "ts" in found else time.time_ns()
        return the_plan, refusals(settings, the_plan, [name for name in others if name != the_plan.stream], now)

    looked = await _concurrently(look, settings.numbers)
    problem = refused([reason for _plan, reasons in looked for reason in reasons], force)
    if problem is not None:
        raise problem
    return [the_plan for the_plan, _reasons in looked]


async def _apply(jetstream: JetStream, the_plan: Plan, limits: StreamLimits) -> None:
    deadline = time.monotonic() + _PEERS_SECONDS
    while True:
        try:
            if the_plan.action == "created":
                await jetstream.create_stream(the_plan.config)
            elif the_plan.action == "updated":
                await jetstream.update_stream(the_plan.config)
            return
        except ApiError as error:
            if not _lacks_servers(error) or time.monotonic() > deadline:
                raise _explained(the_plan, limits, error) from None
            await asyncio.sleep(_ASK_AGAIN / 4)


def _lacks_servers(error: ApiError) -> bool:
    """Whether a cluster has too few servers for a stream, or does not know of them yet."""
    return error.err_code == _NO_PEERS and "storage" not in error.description


def _explained(the_plan: Plan, limits: StreamLimits, error: ApiError) -> ShipperError:
    """The server's no to a plan, with a remedy where there is one."""
    text = "stream %s is not %s: %s" % (the_plan.stream, the_plan.action, error)
    again = "then run this again; what was done is kept"
    lacks_servers = _lacks_servers(error)
    if error.err_code in (*NO_ROOM, *_ACCOUNT_FULL) or (error.err_code == _NO_PEERS and not lacks_servers):
        remedy = "%s: ask for less, or give the broker more room (max_file_store, the account's limits), %s"
        return SettingError("SHIPPER_STREAM_MAX_BYTES", size(limits.max_bytes), remedy % (text, again))
    if error.err_code == _NOT_CLUSTERED or (lacks_servers and limits.replicas > 1):
        remedy = "%s: use no more than the cluster has servers with JetStream, and see that they run, %s"
        return SettingError("SHIPPER_STREAM_REPLICAS", str(limits.replicas), remedy % (text, again))
    return BrokerError(text)


def _print(plans: list[Plan], json_wanted: bool, dry_run: bool) -> None:
    if json_wanted:
        put(json.dumps(rows(plans)))
    else:
        put("".join(line + "\n" for line in told(plans, dry_run)))


@dataclass(frozen=True)
class _Seen:
    """A stream, and what it has of a group: the durable's info, or None."""

    stream: str
    config: Config
    durable: dict[str, Any] | None


async def _look(jetstream: JetStream, stream: str, group: str) -> _Seen | None:
    found = await _info(jetstream, stream)
    if found is None:
        return None
    durable: dict[str, Any] | None
    try:
        durable = await jetstream.consumer_info(stream, group)
        if durable["config"].get("durable_name") != group:
            # A looker-on that happens to be called so.
            durable = None
    except ApiError as error:
        if error.err_code != CONSUMER_NOT_FOUND:
            raise
        durable = None
    return _Seen(stream, found["config"], durable)


def _not_to_be_forgotten(settings: FleetSettings, group: str, there: list[_Seen], force: bool) -> SettingError | None:
    """Why a group cannot be forgotten, or None where it can be."""
    if not there:
        remedy = "there is no stream %s" % partition_stream(settings.stream, 0)
        if len(settings.numbers) > 1:
            remedy += ", nor one of the other %d partitions" % (len(settings.numbers) - 1)
        return SettingError("SHIPPER_STREAM", settings.stream, remedy + ": name the streams' own")
    for seen in there:
        if seen.durable is not None and seen.durable.get("num_waiting", 0) > 0:
            remedy = "it still runs, %s reads %s: stop its consumers first" % (_host(seen.durable), seen.stream)
            return SettingError("GROUP", group, remedy)
    # One that was forgotten and comes again is done again: the first time may have ended half-way.
    if not force and not any(
        seen.durable is not None or FORGOTTEN + group in (seen.config.get("metadata") or {}) for seen in there
    ):
        return SettingError(
            "GROUP",
            group,
            "no stream of %s knows it: see shipper status; if an archive's log says that it "
            "holds a stream back, use --force" % settings.stream,
        )
    return None


async def _leave(jetstream: JetStream, seen: _Seen, group: str) -> None:
    config = await _mark(jetstream, seen.config, group)
    if seen.durable is not None and await jetstream.delete_consumer(seen.stream, group):
        # Marked before, so that a group is still known if this ends here; and behind, because a reader that saw the
        # durable after the first mark takes the group for one that came back.
        await _mark(jetstream, config, group)


async def _mark(jetstream: JetStream, config: Config, group: str) -> Config:
    metadata = {**(config.get("metadata") or {}), FORGOTTEN + group: str(time.time_ns())}
    try:
        updated: Config = (await jetstream.update_stream({**config, "metadata": metadata}))["config"]
    except ApiError as error:
        text = "stream %s cannot be told to forget %s: %s" % (config["name"], group, error)
        if error.err_code in NO_ROOM:
            # A cluster looks at the room for every change of a stream, whatever it changes (ran).
            text += ": the streams are promised more than max_file_store; raise it, then run this again"
        raise BrokerError(text) from None
    return updated


def _owner(durable: dict[str, Any]) -> str | None:
    host: str | None = (durable["config"].get("metadata") or {}).get(OWNER_HOST)
    return host


def _host(durable: dict[str, Any]) -> str:
    return printable(_owner(durable) or "an unnamed host")


def _whereabouts(durable: dict[str, Any]) -> str:
    return "last of %s, with %d messages not read" % (_host(durable), durable.get("num_pending", 0))


async def _info(jetstream: JetStream, stream: str) -> dict[str, Any] | None:
    try:
        return await jetstream.stream_info(stream)
    except ApiError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return None
        raise


async def _await_leader(link: Link) -> None:
    """A cluster that has just started elects a leader first, and until then drops what it is asked."""
    asking = JetStream(link, _ASK_AGAIN)
    deadline = time.monotonic() + _TIMEOUT
    while True:
        try:
            await asking.account_info()
            return
        except PublishRefused:
            # Who may work on streams need not be permitted to ask this.
            return
        except NoAnswer:
            if time.monotonic() > deadline:
                raise
        except ApiError as error:
            if error.err_code != _NO_LEADER or time.monotonic() > deadline:
                raise
            await asyncio.sleep(_ASK_AGAIN / 4)


@contextlib.asynccontextmanager
async def _jetstream(settings: FleetSettings) -> AsyncIterator[JetStream]:
    """JetStream on a server that can do what is needed. Whatever a broker may answer leaves as one clear line."""
    async with connected(settings.broker, "shipper streams", ADMIN_INBOX) as link:
        if (0, 0, 0) < link.version < OLDEST_SERVER:
            text = "the server at %s is nats-server %d.%d.%d, and durable mode needs %d.%d.%d or newer"
            raise BrokerError(text % (link.url, *link.version, *OLDEST_SERVER))
        try:
            await _await_leader(link)
            yield JetStream(link, _TIMEOUT)
        except NoResponders:
            raise BrokerError(_NOT_ENABLED_TEXT % link.url) from None
        except ApiError as error:
            if error.err_code in NOT_ENABLED:
                raise BrokerError(_NOT_ENABLED_TEXT % link.url) from None
            raise BrokerError("JetStream at %s says: %s" % (link.url, error)) from None
        except NoAnswer as error:
            text = "JetStream at %s: %s; does the cluster have a leader? Run this again"
            raise BrokerError(text % (link.url, error)) from None
        except ConnectionLost as error:
            text = "the connection to %s was lost: %s; run this again"
            raise BrokerError(text % (link.url, printable(str(error)))) from None
        except PublishRefused as error:
            text = "%s does not let this user work on the streams: %s"
            raise BrokerError(text % (link.url, printable(str(error)))) from None


_NOT_ENABLED_TEXT = "JetStream is not enabled at %s, for this account: switch it on in the broker's configuration"


async def _concurrently(work: Callable[[Item], Awaitable[Result]], items: Iterable[Item]) -> list[Result]:
    """The results of work on all items, in their order, some at a time.

    After an error no item is begun; those that are begun are finished, and then the error is raised.
    """
    left = iter(enumerate(items))
    results: dict[int, Result] = {}
    errors: dict[int, ShipperError] = {}

    async def worker() -> None:
        for index, item in left:
            try:
                results[index] = await work(item)
            except ShipperError as error:
                errors[index] = error
            if errors:
                return

    await asyncio.gather(*(worker() for _turn in range(_AT_ONCE)))
    if errors:
        raise errors[min(errors)]
    return [results[index] for index in sorted(results)]
