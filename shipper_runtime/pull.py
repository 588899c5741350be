# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a pull consumer: one request of many messages at a time, renewed when it has ended and was read.

ADR-37 and nats-server's server/consumer.go say what a request may ask for and how it ends. Messages come to the reader
in the order in which the server sent them; what they are is for the reader to judge.
"""

from __future__ import annotations

import asyncio
import json
import time

from .broker import Link
from .connection import Message
from .errors import ConnectionLost, OutOfStep

BATCH = 10_000
MAX_BYTES = 16 * 1024 * 1024
_EXPIRES = 30.0
_HEARTBEAT = 5.0
# Without any word for so long, the consumer is gone, or the server does not see us any more.
_SILENCE_MOST = 3 * _HEARTBEAT
# What a message has beside payload and headers: subject and reply.
_MESSAGE_ROOM = 16 * 1024
# How a request ends that is no fault: renew it.
_ENDED = ("404", "408")
_ENDED_409 = ("message size exceeds maxbytes", "batch completed")


class Pull:
    """What a consumer of a stream has, as long as the link lives and nothing goes wrong.

    max_bytes bounds what is under way and not yet taken by messages(). Where a message is larger it is asked for
    alone, and large bounds how many pulls do that at a time.
    """

    def __init__(
        self,
        link: Link,
        stream: str,
        consumer: str,
        max_bytes: int = MAX_BYTES,
        large: asyncio.Semaphore | None = None,
    ) -> None:
        self._link = link
        self._large = large
        self._large_held = False
        self._delivered = 0
        self._starved = False
        self._doubled = 0
        self._subject = "$JS.API.CONSUMER.MSG.NEXT.%s.%s" % (stream, consumer)
        self._max_bytes = max_bytes if large is not None else max(max_bytes, link.max_payload + _MESSAGE_ROOM)
        self._inbox = link.inbox()
        self._subscription: bytes | None = None
        self._messages: list[Message] = []
        self._arrived = asyncio.Event()
        self._requests = 0
        self._left = 0
        self._heard_at = 0.0
        self._failure = ""

    async def start(self) -> None:
        """Ask for the first messages. Raises ConnectionLost."""
        self._subscription = self._link.subscribe(self._inbox + ".*", self._take)
        await self._renew()

    async def messages(self, timeout: float) -> list[Message]:
        """The messages that have come, at least one if one comes within timeout seconds.

        Raises ConnectionLost with the link, and OutOfStep where the server ends the consumer or is silent for long.
        """
        if not self._messages and not self._failure:
            if self._left <= 0:
                await self._renew()
            await self._wait(timeout)
        self._arrived.clear()
        if self._messages:
            found, self._messages = self._messages, []
            return found
        if self._link.lost.is_set():
            raise ConnectionLost(self._link.reason)
        if self._failure:
            raise OutOfStep(self._failure)
        if time.monotonic() - self._heard_at > _SILENCE_MOST:
            raise OutOfStep("the server has been silent for %d s" % _SILENCE_MOST)
        return []

    async def close(self) -> None:
        """Take no more messages."""
        self._release_large()
        if self._subscription is not None:
            self._link.unsubscribe(self._subscription)

    async def _wait(self, timeout: float) -> None:
        waiting = asyncio.ensure_future(self._arrived.wait())
        lost = asyncio.ensure_future(self._link.lost.wait())
        try:
            await asyncio.wait({waiting, lost}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            lost.cancel()

    async def _renew(self) -> None:
        max_bytes, batch = self._max_bytes, BATCH
        self._release_large()
        if self._starved:
            if self._large is not None:
                await self._large.acquire()
                self._large_held = True
            max_bytes, batch = max(max_bytes, 2 * self._link.max_payload + _MESSAGE_ROOM, self._doubled), 1
        self._requests += 1
        self._left = batch
        self._delivered = 0
        self._heard_at = time.monotonic()
        request = {
            "batch": batch,
            "max_bytes": max_bytes,
            "expires": int(_EXPIRES * 1e9),
            "idle_heartbeat": int(_HEARTBEAT * 1e9),
        }
        await self._link.send(self._subject, json.dumps(request).encode(), "%s.%d" % (self._inbox, self._requests))

    def _take(self, msg: Message) -> None:
        self._heard_at = time.monotonic()
        if not msg.subject.startswith(self._inbox):
            self._left -= 1
            self._delivered += 1
            self._starved = False
            self._messages.append(msg)
            self._arrived.set()
        elif msg.subject == "%s.%d" % (self._inbox, self._requests):
            self._take_status((msg.headers or {}).get("Status", ""), (msg.headers or {}).get("Description", ""))

    def _take_status(self, status: str, description: str) -> None:
        if status == "100":
            return
        self._left = 0
        too_large = status == "409" and description.lower().startswith(_ENDED_409[0])
        if too_large and not self._delivered:
            # It was stored when the server took larger ones, if it is larger than any may be.
            self._doubled = 2 * max(self._doubled, self._max_bytes) if self._starved else 0
            self._starved = True
        if status not in _ENDED and not (status == "409" and description.lower().startswith(_ENDED_409)):
            self._failure = description or "the consumer is not there (%s)" % (status or "no status")
        self._arrived.set()

    def _release_large(self) -> None:
        if self._large is not None and self._large_held:
            self._large_held = False
            self._large.release()
