# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishes what the tailer reads: one block in flight per file, re-sent until the server has it.

The tailer is driven from the event loop's thread; what may take long, syncing the positions, happens in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time

from .blocks import Block
from .broker import Broker, check_broker
from .confined import check_directory
from .delivery import CoreDelivery, Delivery, Retry, StreamDelivery, Unanswered, check_positions
from .errors import BrokerError, ConnectionLost, PublishRefused, printable
from .meters import ProducerMeters, serving
from .pace import Pace
from .packing import pack
from .permissions import inbox_prefix
from .positions import PositionStore
from .service import Rarely, Service
from .settings import ProducerSettings
from .siblings import show
from .tailer import Source, Tailer, check_patterns
from .wire import UNPACKED_MOST, Sendable, Span, encode

logger = logging.getLogger(__name__)

BLOCK_BYTES = 512 * 1024
# What all files together may have in flight: 2,000 files with a block each would be a gigabyte.
FLIGHT_BYTES = 12 * 1024 * 1024
# A member's header and end take 28 bytes, and its Huffman codes more.
_PACKED_LEAST = 128
SAVE_INTERVAL = 1.0
# How long the loop may sleep: the watchdog, and a stop that came without a wake-up, want it back.
TICK_MOST = 1.0
STOP_GRACE = 5.0


def check(settings: ProducerSettings) -> None:
    """Look at all that the settings name, and change nothing. Raises SettingError."""
    check_broker(settings.broker)
    check_patterns(settings.files)
    check_directory(settings.state, "SHIPPER_STATE")


async def run(settings: ProducerSettings, service: Service) -> None:
    """Ship until the service is told to stop. Raises SettingError and StateError."""
    name = "shipper producer %s" % settings.host
    delivery: Delivery = CoreDelivery() if settings.stream is None else StreamDelivery(settings.stream)
    broker = Broker(settings.broker, name, inbox_prefix("producer", settings.host))
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(PositionStore(settings.state)))
        store.publish_to("%s %s" % (settings.stream or "", settings.subject))
        tailer = stack.enter_context(contextlib.closing(Tailer(settings.files, store, start=settings.start)))
        await _Producer(settings, service, store, tailer, broker, delivery).run()


class _Producer:
    def __init__(
        self,
        settings: ProducerSettings,
        service: Service,
        store: PositionStore,
        tailer: Tailer,
        broker: Broker,
        delivery: Delivery,
    ) -> None:
        self._settings = settings
        self._service = service
        self._store = store
        self._tailer = tailer
        self._broker = broker
        self._delivery = delivery
        self._flights: set[asyncio.Task[None]] = set()
        self._flight_bytes = 0
        self._pace = Pace(settings.rate)
        self._wake = asyncio.Event()
        self._waiting = Rarely(logger.error)
        self._failed_save = Rarely(logger.error)
        self._saving: asyncio.Task[None] | None = None
        self._saved_at = 0.0
        self._announced: set[bytes] = set()
        self._status = ""
        self._meters = ProducerMeters(self._behind, lambda: broker.reconnects)

    def _behind(self) -> dict[bytes, int]:
        sizes = {path: source.behind() for path, source in self._tailer.sources.items()}
        return {path: size for path, size in sizes.items() if size}

    async def run(self) -> None:
        async with serving(self._meters.registry, self._settings.metrics):
            await self._run()

    async def _run(self) -> None:
        connecting = asyncio.create_task(self._broker.run())
        stopping = asyncio.create_task(self._service.stopping.wait())
        stopping.add_done_callback(lambda _: self._wake.set())
        self._clearing = asyncio.create_task(self._clear())
        self._clearing.add_done_callback(lambda _: self._wake.set())
        try:
            while not stopping.done():
                if connecting.done():
                    connecting.result()
                if self._clearing.done():
                    self._clearing.result()
                await self._turn()
            self._service.stopped()
            if self._flights:
                await asyncio.wait(self._flights, timeout=STOP_GRACE)
        finally:
            for task in (*self._flights, stopping, connecting, self._clearing):
                task.cancel()
            await asyncio.wait({connecting}, timeout=3.0)
            if self._saving is not None:
                await asyncio.wait({self._saving})
            try:
                self._store.save_if_dirty()
            except OSError as error:
                logger.error("Cannot save the positions in %s: %s", printable(self._settings.state), error.strerror)

    async def _turn(self) -> None:
        """Look at the files, send what is new, sleep until there may be more."""
        self._wake.clear()
        now = time.monotonic()
        self._tell()
        # Without a connection too: a rotated file is held open from when its rotation is seen.
        self._tailer.scan(now)
        self._announce()
        link = self._broker.current if self._clearing.done() else None
        held = self._pace.wait(now)
        if link is not None and not held:
            for source in self._tailer.due(now):
                if self._flight_bytes >= FLIGHT_BYTES or self._pace.wait(now):
                    break
                block = source.read(self._pace.piece(min(BLOCK_BYTES, link.max_payload)), link.max_payload, now)
                if block is not None:
                    self._pace.spend(block.span.end - block.span.begin, now)
                    self._launch(source, block)
        self._save_sometimes(now)
        self._service.progress()
        pause = 0.25 if link is None else min(held or self._tailer.next_due(time.monotonic()), TICK_MOST)
        later = asyncio.get_running_loop().call_later(max(pause, 0.001), self._wake.set)
        await self._wake.wait()
        later.cancel()

    def _tell(self) -> None:
        """systemd's status line: whoever deploys looks there for whether it is connected."""
        if self._broker.current is None:
            status = "connecting"
        elif not self._clearing.done():
            status = "waiting for stream %s" % self._settings.stream
        else:
            status = "publishing to %s" % self._settings.subject
        if status != self._status:
            self._status = status
            self._service.ready(status)

    def _announce(self) -> None:
        for path in self._tailer.opened():
            if path not in self._announced:
                self._announced.add(path)
                logger.info("Publishing %s to %s", show(path), self._settings.subject)

    def _launch(self, source: Source, block: Block) -> None:
        size = len(block.payload)
        self._flight_bytes += size
        task = asyncio.create_task(self._deliver(source, block))
        self._flights.add(task)

        def landed(done: asyncio.Task[None]) -> None:
            self._flight_bytes -= size
            self._flights.discard(task)
            self._wake.set()
            if not done.cancelled():
                done.result()

        task.add_done_callback(landed)

    async def _deliver(self, source: Source, block: Block) -> None:
        """Send a block until the server has it; its bytes stay the same however often that takes."""
        repeat = Retry()
        span, payload = self._packed(block)
        while True:
            link = await self._broker.link()
            if len(payload) > link.max_payload:
                # Another server, with a smaller max_payload: what was never taken may be cut anew.
                source.release(block)
                return
            try:
                headers = encode(self._settings.host, span, repeat.fresh_ids, self._store.begun)
                sequence = await self._delivery.deliver(link, self._settings.subject, payload, headers)
            except ConnectionLost:
                continue
            except BrokerError as error:
                self._meters.refused(error)
                pause = repeat.after(error, time.monotonic())
                if repeat.said:
                    self._waiting("Cannot publish to %s: %s; waiting", self._settings.subject, repeat.said)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                continue
            if self._settings.stream is not None:
                self._store.acknowledge(self._settings.stream, self._settings.partition, sequence)
            self._waiting.forget()
            self._meters.acknowledged(block.span.source, block.span.end - block.span.begin)
            source.acked(block)
            return

    def _packed(self, block: Block) -> tuple[Span, Sendable]:
        """What is sent of a block: compressed where that is wanted and makes it smaller."""
        if self._settings.compress is None or not _PACKED_LEAST <= len(block.payload) < UNPACKED_MOST:
            return block.span, block.payload
        newline = b"" if block.span.partial else b"\n"
        payload = pack(self._settings.compress, block.payload, newline)
        if len(payload) >= len(block.payload):
            return block.span, block.payload
        return block.span._replace(packed=True), payload

    async def _clear(self) -> None:
        """Before anything is sent: the positions must not be older than what the stream has. Raises StateError."""
        if self._settings.stream is not None and not self._settings.fresh:
            await self._compare(self._settings.stream)
        self._store.confirmed()

    async def _compare(self, stream: str) -> None:
        repeat = Retry()
        may_ask_why = True
        while True:
            link = await self._broker.link()
            try:
                await check_positions(link, stream, self._settings.subject, self._store, may_ask_why)
                return
            except ConnectionLost:
                continue
            except PublishRefused as refusal:
                logger.warning("Cannot compare the positions with stream %s: %s", stream, refusal)
                return
            except BrokerError as error:
                may_ask_why = may_ask_why and not isinstance(error, Unanswered)
                pause = repeat.after(error, time.monotonic())
                self._waiting("Waiting for stream %s: %s", stream, repeat.said or error)
                await asyncio.sleep(pause)

    def _save_sometimes(self, now: float) -> None:
        if self._saving is not None and self._saving.done():
            self._saving = None
        if self._saving is None and self._store.dirty and now - self._saved_at >= SAVE_INTERVAL:
            self._saved_at = now
            self._saving = asyncio.create_task(self._save(self._store.snapshot()))

    async def _save(self, snapshot: bytes) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._store.write, snapshot)
            self._failed_save.forget()
        except OSError as error:
            # A full disk: the positions stay in memory, and what is sent twice after a crash has the same id.
            self._store.dirty = True
            folder = printable(self._settings.state)
            self._failed_save("Cannot save the positions in %s: %s; trying again", folder, error.strerror)
