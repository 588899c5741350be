# SPDX-License-Identifier: GPL-3.0-or-later
"""The consumer in durable mode: a reader for each partition, and what they have in common."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import time
from collections.abc import Awaitable
from typing import Callable

from .archive import descriptor_budget
from .broker import Broker
from .confined import Root
from .errors import SettingError, printable
from .ledger import Ledger
from .meters import ConsumerMeters, serving
from .permissions import inbox_prefix
from .pull import MAX_BYTES
from .reader import Reader, Shared
from .release import release_unread
from .service import Rarely, Service
from .settings import ConsumerSettings
from .tally import Tally

logger = logging.getLogger(__name__)

TICK = 1.0
# What all partitions of a worker may have on the way together.
# Less than a server keeps for a client (64 MiB) before it cuts it off as too slow.
_PULL_BYTES = 32 * 1024 * 1024
_LARGE_PULLS = 8
# For the connection, the ledger and a few files.
_DESCRIPTORS_BESIDE = 16
_STOP_MOST = 7.0
_CLOSE_MOST = 2.0

Expire = Callable[[Callable[[int], None]], Awaitable[None]]


async def run(settings: ConsumerSettings, service: Service, expire: Expire) -> None:
    """Archive until the service is told to stop. expire removes what is too old, and says from which time (seconds) on
    periods are kept. Raises SettingError and LedgerError."""
    _check_descriptors(settings.partitions)
    broker = Broker(settings.broker, "shipper consumer %s" % settings.group, inbox_prefix("consumer", settings.host))
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(contextlib.closing(Root(settings.directory)))
        opened = await _open_ledger(settings, service)
        if opened is None:
            return
        ledger = stack.enter_context(contextlib.closing(opened))
        if ledger.begun_anew:
            logger.warning(
                "The ledger of %s was begun beside files that were there: what comes is compared with them",
                printable(settings.directory),
            )
        count = max(len(settings.partitions), 1)
        readers: list[Reader] = []
        meters = ConsumerMeters(lambda: _lags(readers), lambda: broker.reconnects, settings.partitions, durable=True)
        shared = Shared(
            settings=settings,
            broker=broker,
            root=root,
            ledger=ledger,
            tally=Tally(),
            meters=meters,
            stopping=service.stopping,
            descriptors=max(16, descriptor_budget() // count),
            pull_bytes=min(MAX_BYTES, _PULL_BYTES // count),
            large_pulls=asyncio.Semaphore(_LARGE_PULLS),
        )
        readers += [Reader(shared, number) for number in settings.partitions]
        async with serving(meters.registry, settings.metrics):
            await _serve(shared, service, readers, expire)


def _check_descriptors(partitions: tuple[int, ...]) -> None:
    """Each partition has a lock, for as long as it is read. Raises SettingError where there cannot be so many."""
    most, _nothing = resource.getrlimit(resource.RLIMIT_NOFILE)
    if partitions and most != resource.RLIM_INFINITY and len(partitions) + _DESCRIPTORS_BESIDE > most:
        shown = "%d to %d" % (partitions[0], partitions[-1])
        remedy = "this process may have %d open files, and needs one for each partition; name fewer, or raise the limit"
        raise SettingError("SHIPPER_READ_PARTITIONS", shown, remedy % most)


def _lags(readers: list[Reader]) -> dict[int, tuple[int, float]]:
    lags = {reader.number: reader.lag() for reader in readers}
    return {number: lag for number, lag in lags.items() if lag is not None}


async def _open_ledger(settings: ConsumerSettings, service: Service) -> Ledger | None:
    """The ledger, or None when it is time to stop; a full disk is waited for."""
    complain = Rarely(logger.error)
    while not service.stopping.is_set():
        try:
            return Ledger(settings.directory)
        except OSError as error:
            service.ready("waiting for room on the disk")
            service.progress()
            complain("Cannot write to %s: %s; waiting", printable(settings.directory), error.strerror or error)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(service.stopping.wait(), 2.0)
    return None


async def _serve(shared: Shared, service: Service, readers: list[Reader], expire: Expire) -> None:
    service.ready("archiving %d partitions" % len(readers))
    connecting = asyncio.create_task(shared.broker.run())
    reading = [asyncio.create_task(reader.run()) for reader in readers]
    others = [
        connecting,
        asyncio.create_task(_tick(shared, service, readers)),
        asyncio.create_task(release_unread(shared)),
        asyncio.create_task(_expire(shared, expire)),
    ]
    stopping = asyncio.create_task(service.stopping.wait())
    try:
        done, _nothing = await asyncio.wait([*reading, *others, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        service.stopped()
        # There may be nothing to read.
        await asyncio.wait([*reading, stopping], timeout=_STOP_MOST)
    finally:
        for task in (*reading, *others, stopping):
            task.cancel()
        await asyncio.wait({connecting, *reading}, timeout=_CLOSE_MOST)
        shared.tally.report(float("inf"))
    for task in reading:
        if task.done() and not task.cancelled():
            task.result()
    counted = "".join(", %d %s" % (amount, kind) for kind, amount in sorted(shared.tally.totals.items()))
    logger.info("Stopped: all that was acknowledged is committed%s", counted)


async def _tick(shared: Shared, service: Service, readers: list[Reader]) -> None:
    while True:
        now = time.monotonic()
        shared.tally.report(now)
        # The watchdog is fed by what the readers do: one that hangs has the program started anew.
        if not any(reader.stuck(now) for reader in readers):
            service.progress()
        await asyncio.sleep(TICK)


async def _expire(shared: Shared, expire: Expire) -> None:
    def clean(first_kept: int) -> None:
        try:
            shared.ledger.clean(first_kept)
        except OSError as error:
            logger.warning("Cannot clean the ledger of %s: %s", printable(shared.settings.directory), error.strerror)

    await expire(clean)
