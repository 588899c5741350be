# SPDX-License-Identifier: GPL-3.0-or-later
"""How a block gets to the server for certain: over core NATS, or into a stream. And what to make of a refusal."""

from __future__ import annotations

import logging
from typing import Protocol

from .broker import Link
from .errors import ApiError, BrokerError, NoAnswer, NoResponders, PublishRefused, StateError, WireError
from .jetstream import DUPLICATE_IN_PROCESS, NO_ROOM, STREAM_FULL, STREAM_NOT_FOUND, JetStream
from .positions import PositionStore
from .wire import Sendable, decode, lives_begun

logger = logging.getLogger(__name__)

ACK_TIMEOUT = 10.0
# A stream that is full for a moment only, while its readers trim it, is not worth a line.
_SAID_AFTER = 2.0
_FIRST, _MOST = 0.02, 5.0


class Delivery(Protocol):
    """Sends one message, and returns when the server has it."""

    async def deliver(self, link: Link, subject: str, payload: Sendable, headers: dict[str, str]) -> int:
        """The message's sequence in the stream, 0 without one. Raises BrokerError's kinds."""
        raise NotImplementedError


class CoreDelivery:
    """Core NATS: the server has read the message."""

    async def deliver(self, link: Link, subject: str, payload: Sendable, headers: dict[str, str]) -> int:
        await link.publish(subject, payload, headers)
        return 0


class NotStored(BrokerError):
    """The server calls the message a duplicate, and has not stored it: it needs another id."""


class StreamDelivery:
    """JetStream: this stream has stored the message."""

    def __init__(self, stream: str) -> None:
        self._stream = stream

    async def deliver(self, link: Link, subject: str, payload: Sendable, headers: dict[str, str]) -> int:
        try:
            ack = await JetStream(link).publish(subject, payload, headers, self._stream, ACK_TIMEOUT)
        except ApiError as error:
            if error.err_code == DUPLICATE_IN_PROCESS:
                raise NotStored(str(error)) from None
            raise
        if ack.stream != self._stream:
            raise NoAnswer("stream %s took it, and %s should have" % (ack.stream, self._stream))
        if ack.sequence <= 0:
            raise NotStored("the server calls it a duplicate that it does not have")
        return ack.sequence


class Retry:
    """How a block is tried again: how long to wait, what to say, and how many fresh ids it has needed."""

    def __init__(self) -> None:
        self.fresh_ids = 0
        self.said = ""
        self._pause = _FIRST
        self._since: float | None = None

    def after(self, error: BrokerError, now: float) -> float:
        """Seconds to wait after this error; said is then what an operator should know of it, if anything."""
        if isinstance(error, NotStored):
            self.fresh_ids += 1
        if self._since is None:
            self._since = now
        full = isinstance(error, (NotStored, ApiError)) and getattr(error, "err_code", STREAM_FULL) == STREAM_FULL
        self.said = "" if full and now - self._since < _SAID_AFTER else _explained(error)
        self._pause = min(self._pause * 2, _MOST)
        return self._pause


def _explained(error: BrokerError) -> str:
    if isinstance(error, NoResponders):
        return "no stream takes it, or the broker has no JetStream or no leader at present"
    if isinstance(error, NotStored):
        return "the stream is full; the log files keep what it does not take"
    if isinstance(error, ApiError):
        if error.err_code == STREAM_FULL:
            return "the stream is full; the log files keep what it does not take"
        if error.err_code in NO_ROOM:
            return "the broker has no room left for the stream: %s" % error
        if error.err_code == STREAM_NOT_FOUND:
            return "there is no such stream; make it with `shipper streams`"
    return str(error)


class Unanswered(BrokerError):
    """Nobody answers for a stream, and why that is may not be asked."""

    def __str__(self) -> str:
        return "nobody answers for it; `shipper streams` makes it, with allow_direct, and it needs a leader"


async def check_positions(
    link: Link, stream: str, subject: str, store: PositionStore, may_ask_why: bool = True
) -> None:
    """Compare the positions with the last message that the stream has of this host.

    Raises StateError where they are gone or an old copy: all that they do not know would be sent a second time, as new.
    Raises Unanswered where nobody answers and the reason is refused, or may_ask_why says that it was before, and
    BrokerError's other kinds.
    """
    js = JetStream(link)
    try:
        last = await js.last_message(stream, subject)
    except NoResponders:
        if not may_ask_why:
            raise Unanswered from None
        try:
            info = await js.stream_info(stream)
        except PublishRefused:
            raise Unanswered from None
        if info["config"].get("allow_direct"):
            raise
        logger.warning("Cannot compare the positions with stream %s: it does not allow direct gets", stream)
        return
    if last is None:
        store.count_from(0)
        return
    try:
        span = decode(last.headers, len(last.payload))
    except WireError:
        span = None
    begun = 0 if span is None else lives_begun(last.headers)
    known = store.acknowledged.get(stream)
    is_newest = store.begun is None or store.begun >= begun
    is_known = span is None or store.knows(span.life) or (known is not None and known.sequence >= last.sequence)
    if is_newest and is_known:
        store.count_from(begun)
        return
    what = "holds no positions" if store.first_start else "holds positions that are older than what was sent"
    raise StateError(
        "SHIPPER_STATE=%s: %s, but stream %s has messages of this host up to %d; restore the folder, or start once "
        "with --fresh to send all that it does not know" % (store.folder, what, stream, last.sequence)
    )
