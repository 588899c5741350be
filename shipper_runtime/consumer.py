# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the messages of some partitions to the archive, as they come.

Messages are planned and gathered as they are handed over, and written when the event loop has no more of them at
once: many small ones with one call, without a timer. What cannot be kept is counted and said.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from functools import partial
from typing import Callable

from . import durable, tally
from .addresses import Addresses
from .archive import Archive, Swept, sweep
from .broker import Broker, check_broker
from .confined import check_directory
from .connection import Handler, Message
from .errors import ConnectionLost, WireError, printable
from .intake import Intake, SteadyTime
from .meters import ConsumerMeters, serving
from .partition import partition_subject
from .permissions import inbox_prefix
from .service import Rarely, Service
from .settings import ConsumerSettings
from .tally import Tally
from .wire import ENCODING, decode

logger = logging.getLogger(__name__)

FLUSH_BYTES = 4 * 1024 * 1024
# What may wait for room on the disk, of all partitions together; what comes beyond that is dropped.
IN_HAND_MOST = 64 * 1024 * 1024
TICK = 1.0
# How long a stop waits for what the server has sent already.
DRAIN_MOST = 5.0
_CLOSE_MOST = 3.0


def check(settings: ConsumerSettings) -> None:
    """Look at all that the settings name, and change nothing. Raises SettingError."""
    check_broker(settings.broker)
    check_directory(settings.directory)


async def run(settings: ConsumerSettings, service: Service) -> None:
    """Write what comes until the service is told to stop. Raises SettingError and LedgerError."""
    if settings.stream is not None:
        await durable.run(settings, service, partial(_expire, settings, service))
        return
    name = "shipper consumer %s" % settings.group
    broker = Broker(settings.broker, name, inbox_prefix("consumer", settings.host))
    consumer = Consumer(settings)
    consumer.meters = ConsumerMeters(dict, lambda: broker.reconnects, settings.partitions)
    with contextlib.closing(consumer.archive):
        async with serving(consumer.meters.registry, settings.metrics):
            await _serve(settings, service, broker, consumer)


async def _serve(settings: ConsumerSettings, service: Service, broker: Broker, consumer: Consumer) -> None:
    service.ready("connecting")
    connecting = asyncio.create_task(broker.run())
    tasks = [
        connecting,
        asyncio.create_task(_subscribe(settings, service, broker, consumer)),
        asyncio.create_task(_tick(service, consumer)),
        asyncio.create_task(_expire(settings, service)),
        asyncio.create_task(service.stopping.wait()),
    ]
    try:
        done, _nothing = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        service.stopped()
        link = broker.current
        if link is not None:
            with contextlib.suppress(ConnectionLost):
                try:
                    await asyncio.wait_for(link.barrier(), DRAIN_MOST)
                except asyncio.TimeoutError:
                    logger.warning("Stopping before all that the server has sent was read: what is left is lost")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait({connecting}, timeout=_CLOSE_MOST)
        consumer.stop()


async def _subscribe(settings: ConsumerSettings, service: Service, broker: Broker, consumer: Consumer) -> None:
    """On each new connection take all partitions again."""
    while True:
        link = await broker.link()
        subjects = [partition_subject(settings.prefix, number) for number in settings.partitions]
        with contextlib.suppress(ConnectionLost):
            for number, subject in zip(settings.partitions, subjects):
                link.subscribe(subject, consumer.handler(number))
            # Who waits for these lines before publishing can rely on them.
            await link.barrier()
            for subject in subjects:
                logger.info("Waiting for messages on subject %s @ %s", subject, link.url)
            service.ready("reading %d partitions at %s" % (len(subjects), link.url))
            await link.lost.wait()
            if not service.stopping.is_set():
                logger.warning("What is published until the next connection is lost; of what has headers it is counted")
            service.ready("connecting")


async def _tick(service: Service, consumer: Consumer) -> None:
    while True:
        consumer.tick()
        service.progress()
        await asyncio.sleep(TICK)


async def _expire(
    settings: ConsumerSettings, service: Service, swept_before: Callable[[int], None] = lambda first_kept: None
) -> None:
    """Sweep at the start, and whenever another period has become too old; swept_before is told which are kept."""
    swept_for: int | None = None
    complain = Rarely(logger.warning)
    while True:
        kept = settings.output.first_kept(time.time(), settings.max_age)
        if kept != swept_for:
            swept = await asyncio.get_running_loop().run_in_executor(
                None,
                sweep,
                settings.directory,
                partial(settings.output.is_older, start=kept),
                service.stopping.is_set,
            )
            _report_sweep(swept, settings, complain)
            swept_for = kept
            swept_before(kept)
        await asyncio.sleep(TICK)


def _report_sweep(swept: Swept, settings: ConsumerSettings, complain: Rarely) -> None:
    if swept.files:
        logger.info("Removed %d old logs, %d bytes, below %s", swept.files, swept.bytes, printable(settings.directory))
    if swept.errors:
        error = swept.errors[0]
        path = printable(os.fsdecode(error.filename or settings.directory))
        complain("Cannot remove %d old logs, such as %s: %s", len(swept.errors), path, error.strerror)


class Consumer:
    """From messages to the archive; knows nothing of connections."""

    def __init__(self, settings: ConsumerSettings) -> None:
        self.tally = Tally()
        self.meters = ConsumerMeters(dict, int)
        self.archive = Archive(settings.directory, self._unwritten)
        self._settings = settings
        self._accept_plain = settings.accept_plain
        self._intake = Intake(whole_lines=not settings.output.has_source)
        self._time = SteadyTime()
        self._addresses = Addresses(settings.prefix, settings.output)
        self._flush_soon = False
        self._blocked = False
        self._messages = 0

    def handler(self, number: int) -> Handler:
        """What to call with each message of a partition, in order."""

        def handle(msg: Message) -> None:
            try:
                self._take(number, msg)
            except Exception as error:
                # A fault of ours must not take others' lines with it, nor go unseen.
                self._reject(msg.subject, "fault of this program: %r" % error)

        return handle

    def tick(self) -> None:
        """Try again what had to wait, and say what has been counted; to be called every second."""
        now = time.monotonic()
        self._flush()
        self.archive.close_idle(now)
        self.tally.report(now)

    def stop(self) -> None:
        """Write what is in hand, and say what the totals are."""
        self._look_at_the_clock()
        for host, data in self._intake.leave():
            self.archive.append(host, self._addresses.name(None), data)
        self._flush()
        self.tally.report(float("inf"))
        if self.archive.in_hand:
            logger.error("Lost about %d bytes that could not be written before the stop", self.archive.in_hand)
        counted = "".join(", %d %s" % (amount, kind) for kind, amount in sorted(self.tally.totals.items()))
        logger.info("Stopped: %d messages, %d bytes written%s", self._messages, self.archive.written, counted)

    def _take(self, number: int, msg: Message) -> None:
        if self.archive.in_hand > IN_HAND_MOST:
            self.tally.count(tally.DROPPED, str(number))
            self.meters.dropped.add(1, str(number))
            return
        data, headers = msg.data, msg.headers
        try:
            host = self._addresses.host(number, msg.subject)
            span = decode(headers, len(data)) if headers else None
            if span is None and not self._accept_plain:
                raise WireError("no headers, and SHIPPER_PLAIN=reject")
            if span is not None and span.packed:
                raise WireError("bad %s" % ENCODING)
        except WireError as error:
            self._reject(msg.subject, error.reason)
            return
        self._messages += 1
        if not self._flush_soon:
            # Once for all that are written together: it costs as much as the rest.
            self._look_at_the_clock()
        if span is None:
            source = None
            data += b"\n"
        else:
            source = span.source
            data, missing, repeated, cut = self._intake.take(host, span, data)  # type: ignore[assignment]  # never packed
            if missing or repeated or cut:
                for kind, amount in ((tally.MISSING, missing), (tally.REPEATED, repeated), (tally.CUT, int(cut))):
                    if amount:
                        self.tally.count(kind, host, amount)
                self.meters.holes.add(missing, str(number))
                self.meters.duplicates.add(repeated, str(number))
        if data:
            self.archive.append(host, self._addresses.name(source), data)
            if not self._flush_soon and not self._blocked:
                self._flush_soon = True
                asyncio.get_running_loop().call_soon(self._flush)
            elif self.archive.in_hand > FLUSH_BYTES and not self._blocked:
                self._flush()

    def _reject(self, subject: str, reason: str) -> None:
        self.tally.count(tally.REJECTED, reason)
        self.meters.rejected.add(1, reason)
        self.tally.complain("Rejecting messages on %s: %s", subject, reason)

    def _look_at_the_clock(self) -> None:
        self._addresses.at(self._time.at(time.time_ns()))

    def _flush(self) -> None:
        self._flush_soon = False
        error = self.archive.flush(time.monotonic())
        if error is not None and not self._blocked:
            logger.error(
                "Cannot write to %s: %s; waiting", printable(self._settings.directory), error.strerror or error
            )
        elif error is None and self._blocked:
            logger.warning("Writing to %s again", printable(self._settings.directory))
        self._blocked = error is not None

    def _unwritten(self, host: str, path: str, size: int, error: OSError) -> None:
        self.tally.count(tally.UNWRITTEN, host, size)
        self.tally.complain("Cannot write %s: %s", path, error.strerror or str(error))
