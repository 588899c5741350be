# SPDX-License-Identifier: GPL-3.0-or-later
"""The numbers that a producer and a consumer show of themselves: docs/metrics.md as code."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Callable

from . import wire
from .errors import ApiError, BrokerError, NoAnswer, NoResponders, PublishRefused
from .jetstream import NO_ROOM, STREAM_FULL
from .metrics import Labels, Registry, serve
from .settings import Listen

_PARTITION = ("partition",)

# A counter with labels is there from the start, at 0, for every label that is known: one that appears only with its
# first event has no increase at that event, and no alert on it fires.
REFUSED = ("full", "no_room", "no_stream", "not_permitted", "no_answer", "other")
# All the reasons of a WireError.
REJECTED = (
    "a server's answer, not a host's message",
    "bad host",
    "bad offset",
    *("bad %s" % name for name in (wire.SOURCE, wire.LIFE, wire.HEAD, wire.PARTIAL, wire.SINCE, wire.ENCODING)),
    "damaged gzip member",
    *("header missing: %s" % name for name in (wire.SOURCE, wire.LIFE, wire.HEAD, wire.BEGIN, wire.END)),
    "length and offsets disagree",
    "not a gzip member",
    "no headers, and SHIPPER_PLAIN=reject",
)


@contextlib.asynccontextmanager
async def serving(registry: Registry, listen: Listen | None) -> AsyncIterator[None]:
    """Serve the metrics where that is wanted. Raises SettingError where it cannot be done."""
    if listen is None:
        yield
        return
    server = await serve(registry, listen)
    try:
        yield
    finally:
        server.close()


class ProducerMeters:
    """behind() tells for each source that has any how many bytes are not acknowledged yet; reconnects() how many
    connections were lost."""

    def __init__(self, behind: Callable[[], Mapping[bytes, int]], reconnects: Callable[[], int]) -> None:
        self.registry = registry = Registry()
        self._behind = behind
        # When a source was acknowledged last, or seen to be behind first.
        self._since: dict[bytes, float] = {}
        self._bytes = registry.counter("shipper_published_bytes_total", "Bytes of log files that the broker has.")
        self._messages = registry.counter("shipper_published_messages_total", "Messages that carried them.")
        registry.gauge("shipper_lag_bytes", "Bytes of tailed files not acknowledged yet.", value=self._lag_bytes)
        registry.gauge("shipper_lag_seconds", "Since when nothing of them was acknowledged.", value=self._lag_seconds)
        self._refused = registry.counter("shipper_refused_total", "Publishes to be done again.", ("reason",))
        for why in REFUSED:
            self._refused.add(0, why)
        registry.counter("shipper_reconnects_total", "Connections that were lost.", value=reconnects)

    def acknowledged(self, source: bytes, size: int) -> None:
        """The broker has so many bytes more of a source."""
        self._bytes.add(size)
        self._messages.add()
        if source in self._since:
            self._since[source] = time.monotonic()

    def refused(self, error: BrokerError) -> None:
        """A message was not taken."""
        self._refused.add(1, reason(error))

    def _lag_bytes(self) -> int:
        behind = self._behind()
        now = time.monotonic()
        self._since = {source: self._since.get(source, now) for source in behind}
        return sum(behind.values())

    def _lag_seconds(self) -> float:
        self._lag_bytes()
        now = time.monotonic()
        return now - min(self._since.values(), default=now)


def reason(error: BrokerError) -> str:
    """Why a message was not taken, as a label."""
    if isinstance(error, ApiError):
        if error.err_code == STREAM_FULL:
            return "full"
        return "no_room" if error.err_code in NO_ROOM else "other"
    kinds = {NoResponders: "no_stream", PublishRefused: "not_permitted", NoAnswer: "no_answer"}
    return kinds.get(type(error), "other")


class ConsumerMeters:
    """lag() tells for each partition that is read how many messages are not committed, and the age of the oldest of
    them in seconds; partitions are those that this process is to read, whether or not they are its own yet."""

    def __init__(
        self,
        lag: Callable[[], Mapping[int, tuple[int, float]]],
        reconnects: Callable[[], int],
        partitions: Iterable[int] = (),
        durable: bool = False,
    ) -> None:
        self.registry = registry = Registry()
        counter = registry.counter
        self.committed_bytes = counter("shipper_committed_bytes_total", "Bytes safe in the archive.", _PARTITION)
        self.committed_messages = counter("shipper_committed_messages_total", "Messages dealt with.", _PARTITION)
        self.duplicates = counter("shipper_duplicate_bytes_total", "Bytes that had come before.", _PARTITION)
        self.holes = counter("shipper_hole_bytes_total", "Bytes of a source that never came.", _PARTITION)
        self.rejected = counter("shipper_rejected_messages_total", "Messages that are not ours.", ("reason",))
        self.dropped = counter("shipper_dropped_messages_total", "Messages that came too fast.", _PARTITION)
        committed = (self.committed_bytes, self.committed_messages) if durable else (self.dropped,)
        for number in partitions:
            for metric in (self.duplicates, self.holes, *committed):
                metric.add(0, str(number))
        for why in REJECTED:
            self.rejected.add(0, why)
        self.last_commit = registry.gauge(
            "shipper_last_commit_timestamp_seconds", "When something was committed last.", _PARTITION
        )
        registry.gauge(
            "shipper_lag_messages",
            "Messages in the stream that are not committed.",
            _PARTITION,
            value=lambda: _labelled({number: messages for number, (messages, _age) in lag().items()}),
        )
        registry.gauge(
            "shipper_lag_seconds",
            "Age of the oldest message that is not committed.",
            _PARTITION,
            value=lambda: _labelled({number: age for number, (_messages, age) in lag().items()}),
        )
        counter("shipper_reconnects_total", "Connections that were lost.", value=reconnects)


def _labelled(values: Mapping[int, float]) -> dict[Labels, float]:
    return {(str(number),): value for number, value in values.items()}
