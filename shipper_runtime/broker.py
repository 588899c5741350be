# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to NATS, made again for ever.

A link is one connection's life and never comes back: nats-py's own reconnecting is off, because it re-sends what was
given up, keeps state of the old connection and ends for good at some errors. Whoever works on a link waits for the
next one when it is lost, and does again what was in hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import random
import re
import secrets
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any, Callable

import nats.errors
from nats.aio.client import Client

from . import natsfix
from .connection import Connection, Handler, Message
from .credentials import load_credentials
from .errors import ConnectionLost, NoAnswer, NoResponders, PublishRefused, SettingError, printable
from .servers import Server
from .service import Rarely
from .settings import BrokerSettings
from .wire import HEADER_ROOM, Sendable

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 5.0
# How long a barrier may take before the connection counts as dead; nats-py would notice after 3 x 120 s.
BARRIER_TIMEOUT = 10.0
HEARTBEAT = 10.0
REQUEST_TIMEOUT = 5.0
_BACKOFF_FIRST = 0.25
_BACKOFF_MOST = 8.0
# What lives for so long has begun well.
_STEADY = 2.0
# What nats-py raises where somebody else listens, who says what it cannot read.
_NONSENSE = (AttributeError, TypeError, ValueError)
_WHY_NOT = (nats.errors.Error, OSError, asyncio.TimeoutError, SettingError, *_NONSENSE)

_REFUSED = re.compile(r'Permissions Violation for Publish to "(.*)"\Z', re.DOTALL)


class Link:
    """One live connection.

    Attributes: url, which holds no secret; version, the server's, such as (2, 15, 1); max_payload in bytes, less the
    room for headers; lost, set when the connection is gone.
    """

    def __init__(self, client: Client, server: Server, inbox: str) -> None:
        self.url = server.url
        self.version = _version(client)
        self.max_payload = client.max_payload - HEADER_ROOM
        self.lost = asyncio.Event()
        self.reason = ""
        # Who may let the server answer to any subject must not be able to guess this one.
        self._inbox = "%s.%s" % (inbox, secrets.token_hex(8))
        # What is waited for, by the subject that the answer comes to, and what was asked.
        self._waiting: dict[str, tuple[asyncio.Future[Message | None], str]] = {}
        self._numbers = 0
        self._refused: dict[str, str] = {}
        self._connection = Connection(self.lose, self._on_error)
        self._client = client
        natsfix.hand_over(client, self._connection)
        self._connection.subscribe(self._inbox + ".*", self._on_inbox)

    def subscribe(self, subject: str, handler: Handler) -> bytes:
        """Have handler called with each message, in order, as it comes: it must not raise, and not take long. What
        unsubscribe() takes. Raises ConnectionLost."""
        if self.lost.is_set():
            raise ConnectionLost(self.reason)
        return self._connection.subscribe(subject, handler)

    def unsubscribe(self, subscription: bytes) -> None:
        """No more messages of it."""
        self._connection.unsubscribe(subscription)

    def inbox(self) -> str:
        """A subject of this link's own, below which anything may come: inbox() + ".*"."""
        return self._next_name()

    async def send(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Send a message and do not wait for anything. Raises ConnectionLost."""
        await self._send(subject, payload, None, reply)

    async def request(
        self,
        subject: str,
        payload: Sendable,
        headers: dict[str, str] | None = None,
        *,
        timeout: float = REQUEST_TIMEOUT,
    ) -> Message:
        """Send a message and return the first answer.

        Raises NoResponders where nobody listens, NoAnswer where nobody answers in time, PublishRefused where the
        subject is not permitted, and ConnectionLost.
        """
        name = self._next_name()
        answer: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        self._waiting[name] = (answer, subject)
        try:
            await self._send(subject, payload, headers, name)
            # Not wait_for: on 3.9 to 3.11 it can lose the race between a result and the time-out.
            silence = NoAnswer("no answer in %g s" % timeout)
            late = asyncio.get_running_loop().call_later(timeout, _fail, answer, silence)
            try:
                msg = await answer
            finally:
                late.cancel()
            if self.lost.is_set():
                raise ConnectionLost(self.reason)
            if msg is None:
                raise PublishRefused(self._refused.get(subject, "not permitted"))
            if msg.headers and msg.headers.get("Status") == "503" and not msg.data:
                raise NoResponders("nobody answers on %s" % subject)
            return msg
        finally:
            self._waiting.pop(name, None)
            answer.cancel()

    async def publish(self, subject: str, payload: Sendable, headers: dict[str, str]) -> None:
        """Send a message and wait until the server has it.

        Core NATS has no acknowledgement: a marker to the own inbox, sent behind the message on the same connection,
        comes back only after the server has read the message. Raises PublishRefused where the server said that this
        subject is not permitted, and ConnectionLost where it cannot be known whether the message arrived.
        """
        self._refused.pop(subject, None)
        await self._send(subject, payload, headers)
        await self.barrier()
        refusal = self._refused.get(subject)
        if refusal is not None:
            raise PublishRefused(refusal)

    async def barrier(self) -> None:
        """Return when the server has read all that was sent before. Raises ConnectionLost."""
        name = self._next_name()
        arrived: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        self._waiting[name] = (arrived, name)
        try:
            await self._send(name, b"", None)
            while not arrived.done():
                heard = self._connection.received
                # Not wait_for: on 3.9 to 3.11 it can lose the race between a result and the time-out.
                await asyncio.wait({arrived}, timeout=BARRIER_TIMEOUT)
                # Behind a backlog the marker may be late; only silence means that the server is gone.
                if not arrived.done() and self._connection.received == heard:
                    self.lose("no answer in %d s" % BARRIER_TIMEOUT)
                    break
            if not arrived.done() or self.lost.is_set():
                raise ConnectionLost(self.reason)
        finally:
            self._waiting.pop(name, None)
            arrived.cancel()

    async def watch(self) -> None:
        """Return when the link is lost; sees to it that a dead server, or a dead read loop, is noticed."""
        while not self.lost.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.lost.wait(), HEARTBEAT)
            if not self.lost.is_set():
                with contextlib.suppress(ConnectionLost):
                    await self.barrier()

    def lose(self, reason: str) -> None:
        """This link is over: everybody who waits on it is told."""
        if not self.lost.is_set():
            self.reason = reason
            self.lost.set()
            self._tell(lambda asked: True)

    def _on_error(self, text: str) -> None:
        """What the server complains of: a permission that is missing, or why it closes the connection."""
        refused = _REFUSED.match(text)
        if refused is not None:
            self._refused[refused.group(1)] = text
            if self._tell(lambda asked: asked == refused.group(1)):
                return  # who waits for an answer says it
        if text.startswith("Permissions Violation"):
            logger.warning("%s refuses: %s", self.url, text)

    def _next_name(self) -> str:
        self._numbers += 1
        return "%s.%d" % (self._inbox, self._numbers)

    def _tell(self, concerns: Callable[[str], bool]) -> int:
        """Who waits for an answer that will not come; how many these were."""
        told = [answer for answer, asked in self._waiting.values() if concerns(asked) and not answer.done()]
        for answer in told:
            answer.set_result(None)
        return len(told)

    async def _send(self, subject: str, payload: Sendable, headers: dict[str, str] | None, reply: str = "") -> None:
        if self.lost.is_set():
            raise ConnectionLost(self.reason)
        await self._connection.publish(subject, reply, payload, headers)

    def _on_inbox(self, msg: Message) -> None:
        waiting = self._waiting.get(msg.subject)
        if waiting is not None and not waiting[0].done():
            waiting[0].set_result(msg)

    async def close(self) -> None:
        """Send what is queued if that goes quickly, and give the connection up."""
        self.lose("closed")
        await self._connection.close()


class Broker:
    """Keeps one link alive, for ever, on whichever server answers.

    name is shown in the server's monitoring; inbox is the subject below which this identity may receive answers.
    failure says why there was no connection when one was tried last.
    """

    def __init__(self, settings: BrokerSettings, name: str, inbox: str) -> None:
        self.reconnects = 0
        self.failure = ""
        self._settings = settings
        self._credentials = load_credentials(settings)
        self._name = name
        self._inbox = inbox
        self._link: Link | None = None
        self._connected = asyncio.Event()
        self._complain = Rarely(logger.warning)
        self._handshake_first: set[str] = set()

    async def run(self) -> None:
        """Connect, watch, connect again; cancel it to stop, which closes the link."""
        servers = list(self._settings.servers)
        random.shuffle(servers)
        failures = 0
        await asyncio.sleep(self._settings.jitter * random.random())
        while True:
            server = servers[failures % len(servers)]
            link = await self._connect(server)
            if link is None:
                failures += 1
                await asyncio.sleep(_backoff(failures // len(servers)))
                continue
            began = time.monotonic()
            self._complain.forget()
            logger.info("Connected to %s", link.url)
            self._link = link
            self._connected.set()
            try:
                await link.watch()
            finally:
                await link.close()
            logger.warning("Disconnected from %s: %s", link.url, link.reason)
            self.reconnects += 1
            # Who drops whom it has just accepted is no better than who does not answer.
            failures = failures + 1 if time.monotonic() - began < _STEADY else 0
            # A whole fleet loses its server in the same instant and must not come back in one.
            pause = _backoff(max(1, failures // len(servers)))
            await asyncio.sleep(max(pause, self._settings.jitter * random.random()))

    @property
    def current(self) -> Link | None:
        """The live link, if there is one."""
        return None if self._link is None or self._link.lost.is_set() else self._link

    async def link(self) -> Link:
        """The live link; waits for one."""
        while self.current is None:
            self._connected.clear()
            await self._connected.wait()
        return self.current

    async def _connect(self, server: Server) -> Link | None:
        settings = self._settings
        tls = settings.tls_required(server)
        client = natsfix.FixedClient(require_tls=tls)
        errors: list[Exception] = []
        ready = False

        async def on_error(error: Exception) -> None:
            errors.append(error)

        options: dict[str, Any] = {}
        if server.token is not None:
            options["token"] = server.token
        if server.password is not None:
            options.update(user=server.user or "", password=server.password)
        if self._credentials is not None:
            options.update(user_jwt_cb=self._credentials.jwt, signature_cb=self._credentials.sign)
        try:
            await asyncio.wait_for(
                client.connect(
                    servers=[server.url],
                    name=self._name,
                    inbox_prefix=self._inbox,
                    error_cb=on_error,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=CONNECT_TIMEOUT,  # type: ignore[arg-type]  # seconds, given to asyncio.wait_for
                    tls=tls_context(settings) if tls else None,
                    tls_handshake_first=server.url in self._handshake_first,
                    **options,
                ),
                2.5 * CONNECT_TIMEOUT,
            )
            if client.max_payload <= HEADER_ROOM:
                raise OSError("its max_payload is %d, and %d is the least" % (client.max_payload, HEADER_ROOM + 1))
            link = Link(client, server, self._inbox)
            ready = True
            return link
        except _WHY_NOT as error:
            cause = _sense(errors[-1] if errors and isinstance(error, nats.errors.NoServersError) else error)
            if tls and server.url not in self._handshake_first and _said_nothing(cause):
                # No INFO in the clear: the server may want the handshake first. Try it that way next time.
                self._handshake_first.add(server.url)
            else:
                self._handshake_first.discard(server.url)
            self.failure = "cannot connect to NATS at %s: %s" % (server.url, _reason(cause))
            self._complain("Cannot connect to NATS at %s: %s; trying again", server.url, _reason(cause))
            return None
        finally:
            # Also where this is cancelled.
            if not ready:
                natsfix.abort(client)


def _sense(cause: Exception) -> Exception:
    """The same, or where it only shows that nats-py stumbled, what that means."""
    # A certificate that is refused is a ValueError too, and a name that cannot be looked up is a UnicodeError.
    named = isinstance(cause, OSError) or (
        isinstance(cause, UnicodeError) and not isinstance(cause, UnicodeDecodeError)
    )
    if isinstance(cause, _NONSENSE) and not named:
        return OSError("what it says is not NATS's protocol")
    return cause


@contextlib.asynccontextmanager
async def connected(settings: BrokerSettings, name: str, inbox: str, patience: float = 10.0) -> AsyncIterator[Link]:
    """A link for a command that runs once. Raises SettingError, and ConnectionLost where none is there in time."""
    broker = Broker(dataclasses.replace(settings, jitter=0), name, inbox)
    connecting = asyncio.create_task(broker.run())
    linking = asyncio.create_task(broker.link())
    try:
        await asyncio.wait({connecting, linking}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not linking.done():
            raise ConnectionLost(broker.failure or "cannot connect to NATS at %s" % settings.servers[0].url)
        yield linking.result()
    finally:
        linking.cancel()
        connecting.cancel()
        await asyncio.wait({connecting}, timeout=3.0)


def check_broker(settings: BrokerSettings) -> None:
    """Look at the files that the settings name. Raises SettingError."""
    load_credentials(settings)
    if any(settings.tls_required(server) for server in settings.servers):
        tls_context(settings)


def tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    """The context for one connection: read each time, so that certificates can be replaced without a restart.
    Raises SettingError."""
    try:
        context = ssl.create_default_context(cafile=settings.ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingError("NATS_CA", settings.ca or "", "it cannot be read as PEM: %s" % _reason(error)) from None
    if settings.certificate is not None:

        def encrypted() -> str:
            remedy = "it is encrypted, and nobody is there to be asked; use one that is not, which only the program's"
            raise SettingError("NATS_KEY", settings.key, remedy + " user may read")

        try:
            context.load_cert_chain(settings.certificate, settings.key, encrypted)
        except (OSError, ssl.SSLError) as error:
            remedy = "it and NATS_KEY=%s cannot be read as PEM that belongs together: %s" % (
                settings.key,
                _reason(error),
            )
            raise SettingError("NATS_CERTIFICATE", settings.certificate, remedy) from None
    return context


def _fail(future: asyncio.Future[Message | None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _version(client: Client) -> tuple[int, int, int]:
    version = client.connected_server_version
    try:
        return (version.major, version.minor, version.patch)
    except ValueError:
        # A build of somebody's own; what it lacks it will say itself.
        return (0, 0, 0)


def _said_nothing(error: Exception) -> bool:
    return isinstance(error, asyncio.TimeoutError) or "empty response" in str(error)


def _backoff(failures: int) -> float:
    most = min(_BACKOFF_MOST, _BACKOFF_FIRST * 2.0 ** min(failures, 10))
    return most * random.uniform(0.5, 1.0)


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(text[len("nats: ") :] if text.startswith("nats: ") else text)
