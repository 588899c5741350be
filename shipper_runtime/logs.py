# SPDX-License-Identifier: GPL-3.0-or-later
"""``shipper logs HOST``: what the stream holds of a host's lines, on stdout, byte for byte, or a JSON object each.

The lines are those that an archive without {source} gets: sources interleaved by whole lines, and nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import stat
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from .broker import connected
from .connection import Message
from .errors import ApiError, BrokerError, OutOfStep, OutputError, SettingError, WireError
from .intake import Intake
from .jetstream import STREAM_NOT_FOUND, JetStream, Place, place
from .onlooker import onlooker
from .packing import received
from .partition import host_subject, partition
from .permissions import ADMIN_INBOX
from .service import Rarely, Service
from .settings import FleetSettings, partition_stream
from .terminal import put, put_error
from .wire import Payload, decode

_AGO = re.compile(r"([0-9]{1,9})([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# How long the server may send nothing before it is asked whether that was all.
_QUIET = 1.0
_STRAGGLERS = 0.1
# A stopped program writes out what it has in hand, if anybody reads it.
_GRACE = 2.0
_PAUSE = 1.0


def since(text: str | None) -> float | None:
    """When to begin, in seconds since 1970: so long ago (10m, 2h, 1d), or at a time as RFC 3339 writes it; None is the
    stream's beginning. Raises SettingError."""
    if text is None:
        return None
    ago = _AGO.match(text)
    if ago is not None:
        return _bounded(time.time() - int(ago.group(1)) * _SECONDS[ago.group(2)])
    match = _MOMENT.match(text)
    if match is not None:
        day, hour, fraction, zone = match.groups()
        # RFC 3339 allows :60, and Python does not.
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat("%sT%s%s" % (day, hour, "+00:00" if zone in "Zz" else zone))
            return _bounded((moment - _EPOCH).total_seconds() + float("0" + (fraction or "")))
    remedy = "use so long ago, such as 10m, 2h or 1d, or a time with its zone, such as 2026-01-31T10:00:00Z"
    raise SettingError("--since", text, remedy)


def begins(begin: float | None, last: int) -> dict[str, Any]:
    """Where a consumer begins that is to go on behind the sequence last, or where that is 0, at the time begin."""
    if last:
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": last + 1}
    if begin is None:
        return {"deliver_policy": "all"}
    moment = (_EPOCH + timedelta(seconds=begin)).isoformat().replace("+00:00", "Z")
    return {"deliver_policy": "by_start_time", "opt_start_time": moment}


def objects(host: str, source: bytes | None, stamp: int | None, data: Payload) -> bytes:
    """For each line in data a JSON object on a line. Bytes that are no UTF-8 are what Python's surrogateescape makes of
    them. stamp is in ns; it and source are None where that is not known."""
    complete = data.endswith(b"\n")
    head = {
        "host": host,
        "source": None if source is None else source.decode(errors="surrogateescape"),
        "time": None if stamp is None else _written(stamp),
        "complete": complete,
    }
    lines = bytes(data[:-1] if complete else data).split(b"\n")
    return b"".join(
        json.dumps({**head, "line": line.decode(errors="surrogateescape")}).encode() + b"\n" for line in lines
    )


class Lines:
    """What is printed for a host's messages. rejected counts those that break docs/wire.md; they are left out.

    source is where the last one was from, None for a plain one."""

    def __init__(self, host: str) -> None:
        self.rejected = 0
        self.source: bytes | None = None
        self._host = host
        self._intake = Intake(whole_lines=True)
        self._stamp = 0
        self._again_until = 0

    def take(self, headers: Mapping[str, str] | None, payload: Payload, stamp: int) -> Payload:
        """The lines that a message completes, newlines included; stamp is when it was stored (ns)."""
        self._stamp = max(self._stamp, stamp)
        try:
            span = decode(headers, len(payload))
            self.source = None if span is None else span.source
            taken = None if span is None else self._intake.take(self._host, span, received(span, payload))
        except WireError:
            self.rejected += 1
            return b""
        if taken is None:
            return payload + b"\n" if stamp > self._again_until else b""
        return taken.data  # type: ignore[return-value]  # nothing stays packed

    def again(self) -> None:
        """The stream is read from its beginning once more: plain lines are known by their time, others by their
        offsets."""
        self._again_until = self._stamp

    def rest(self) -> bytes:
        """The beginning of a line whose end has not come; lines of several sources each but the last with a newline."""
        return b"".join(data for _host, data in self._intake.leave())[:-1]


class Output:
    """Writes to a descriptor, and waits for whoever reads it without stopping the loop: a pager may be left alone for
    hours, and the server must not take this program for dead meanwhile."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    async def write(self, data: Payload) -> None:
        """Return when all is written. Raises OutputError, and BrokenPipeError where whoever reads it has gone."""
        left = memoryview(data)
        while left:
            if not self._is_file:
                await self._room()
            # A pipe that is ready takes so many bytes at once (pipe(7)).
            size = len(left) if self._is_file else select.PIPE_BUF
            try:
                left = left[os.write(self._descriptor, left[:size]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OutputError(error.strerror) from None

    async def _room(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._poll.poll(0):
            ready = asyncio.Event()
            loop.add_writer(self._descriptor, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_writer(self._descriptor)


class Reading:
    """One run of the command: reads on and on, over as many connections as that takes."""

    def __init__(
        self,
        settings: FleetSettings,
        host: str,
        begin: float | None,
        out: Output,
        stop: asyncio.Event,
        *,
        follow: bool,
        as_json: bool,
    ) -> None:
        number = partition(host, settings.partitions)
        self._settings = settings
        self._stream = partition_stream(settings.stream, number)
        self._subject = host_subject(settings.prefix, number, host)
        self._host = host
        self._begin = begin
        self._follow = follow
        self._as_json = as_json
        self._out = out
        self._stop = stop
        self._lines = Lines(host)
        self._complain = Rarely(_say)
        self._created = ""
        # The stream's last sequence at the start, where it ends; and that of the last message that was printed.
        self._end: int | None = None
        self._last = 0
        self._began = False

    async def run(self) -> None:
        """Return when all is printed, or stop is set. Raises BrokerError where there is nothing to be had, at the
        start or, without follow, with no progress on a new connection; OutputError, BrokenPipeError."""
        while not self._stop.is_set():
            before = self._last
            try:
                async with connected(self._settings.broker, "shipper logs", ADMIN_INBOX) as link:
                    await self._read(JetStream(link))
                break
            except BrokerError as error:
                if not self._began or not (self._follow or self._last > before):
                    raise
                self._complain("%s; trying again", error)
            await asyncio.sleep(_PAUSE)
        if not self._stop.is_set():
            # Of which source, and when it came, is not asked: there may be several.
            await self._write(self._lines.rest(), None, None)
        if self._lines.rejected:
            _say("messages left out that are not as docs/wire.md says: %d", self._lines.rejected)

    async def _read(self, api: JetStream) -> None:
        await self._look_at_stream(api)
        async with onlooker(api, self._stream, self._subject, begins(self._begin, self._last)) as look:
            if not self._began and not look.at_start:
                when = "" if self._begin is None else " of that time"
                _say("%s holds nothing of %s%s", self._stream, self._host, when)
            self._began = True
            left, delivery = look.at_start, 0
            while (left or self._follow) and not self._stop.is_set():
                messages = await look.pull.messages(_QUIET)
                if not messages and not self._follow:
                    # Trimmed away meanwhile, perhaps. What was sent before this answer comes before it.
                    left = await look.left()
                    messages = await look.pull.messages(_STRAGGLERS)
                for msg in messages:
                    delivery += 1
                    where = _where(msg, delivery)
                    if self._end is not None and where.sequence > self._end:
                        return
                    left = 0 if where.sequence == self._end else where.pending
                    data = self._lines.take(msg.headers, msg.data, where.stamp)
                    await self._write(data, self._lines.source, where.stamp)
                    self._last = where.sequence
                    if self._stop.is_set():
                        return

    async def _write(self, data: Payload, source: bytes | None, stamp: int | None) -> None:
        if data:
            await self._out.write(objects(self._host, source, stamp, data) if self._as_json else data)

    async def _look_at_stream(self, api: JetStream) -> None:
        try:
            info = await api.stream_info(self._stream)
        except ApiError as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise BrokerError("the stream %s is not there: shipper streams makes it" % self._stream) from None
            raise
        last = int(info["state"]["last_seq"])
        if self._began and (info["created"] != self._created or last < self._last):
            # Its numbers are used a second time.
            self._complain("%s was made anew, or has lost its end", self._stream)
            self._lines.again()
            self._last = 0
            self._end = None
        self._created = info["created"]
        if self._end is None and not self._follow:
            self._end = last


async def run(settings: FleetSettings, host: str, begin: float | None, *, follow: bool, as_json: bool) -> None:
    """Print; SIGTERM and SIGINT end it in good order. Raises BrokerError, OutputError and BrokenPipeError."""
    service = Service()
    service.catch_signals()
    # Is there a stdout at all?
    put()
    out = Output(sys.stdout.fileno())
    work = Reading(settings, host, begin, out, service.stopping, follow=follow, as_json=as_json)
    reading = asyncio.ensure_future(work.run())
    stopped = asyncio.ensure_future(service.stopping.wait())
    try:
        await asyncio.wait({reading, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({reading}, timeout=_GRACE)
    finally:
        stopped.cancel()
        reading.cancel()
        await asyncio.wait({reading})
    if not reading.cancelled():
        reading.result()


def _written(stamp: int) -> str:
    """A time in ns since 1970 as RFC 3339 writes it, to the ns."""
    seconds, fraction = divmod(stamp, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + ".%09dZ" % fraction


def _bounded(seconds: float) -> float:
    """What can be written as a time in UTC: years 1970 to 9999."""
    return min(max(0.0, seconds), 253_402_300_799.0)


def _where(msg: Message, delivery: int) -> Place:
    where = place(msg.reply)
    if where is None or where.delivery != delivery:
        raise OutOfStep("a message was lost on the way")
    return where


def _say(message: str, *args: object) -> None:
    put_error(message % args)
