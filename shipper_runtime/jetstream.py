# SPDX-License-Identifier: GPL-3.0-or-later
"""JetStream as this program needs it: requests and answers over a link, nothing kept.

The API is JSON on subjects: https://docs.nats.io/reference/reference-protocols/nats_api_reference, and nats-server's
server/jetstream_api.go. nats-py's own JetStream layer is not used: it subscribes to an inbox of its own, hides what
decides here (a duplicate with sequence 0, a pull's end), and loses messages when a fetch is cancelled.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

from .broker import REQUEST_TIMEOUT, Link
from .connection import Message
from .errors import ApiError, NoAnswer
from .wire import ANSWER, Sendable

# Before 2.10 streams and consumers have no metadata, which says whose a durable is.
OLDEST_SERVER = (2, 10, 0)

NOT_ENABLED = (10039, 10076)
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
# What a producer meets: the stream is full, or has no room on the broker's disk.
STREAM_FULL = 10077
NO_ROOM = (10047, 10023)
DUPLICATE_IN_PROCESS = 10158

_EXPECTED_STREAM = "Nats-Expected-Stream"
_ADDED = (*ANSWER, "Nats-Time-Stamp")
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)\Z")


@dataclass(frozen=True)
class Ack:
    """The server's word that a message is stored. sequence is 0 where a server says "duplicate" of a message that it
    has not stored, as 2.10 does with three replicas and a full stream."""

    stream: str
    sequence: int
    duplicate: bool


@dataclass(frozen=True)
class Stored:
    """A message of a stream, with its own headers; stamp is the broker's time in ns since 1970."""

    subject: str
    sequence: int
    stamp: int
    headers: dict[str, str]
    payload: bytes


class Place(NamedTuple):
    """Where a delivered message stands: its sequence in the stream, the how manieth delivery it is to this consumer,
    how often this message was delivered, the broker's time (ns), and how many messages are behind it."""

    stream: str
    consumer: str
    sequence: int
    delivery: int
    times: int
    stamp: int
    pending: int


class JetStream:
    """The API on one link. Each call raises BrokerError's kinds: ApiError where the server says no."""

    def __init__(self, link: Link, timeout: float = REQUEST_TIMEOUT) -> None:
        self.link = link
        self._timeout = timeout

    async def publish(
        self, subject: str, payload: Sendable, headers: dict[str, str], stream: str, timeout: float = REQUEST_TIMEOUT
    ) -> Ack:
        """Store a message in this stream and no other."""
        answer = await self.link.request(subject, payload, {**headers, _EXPECTED_STREAM: stream}, timeout=timeout)
        body = _body(answer)
        try:
            return Ack(str(body["stream"]), int(body.get("seq", 0)), bool(body.get("duplicate", False)))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise NoAnswer("an answer that is no acknowledgement: %r" % answer.data[:100]) from None

    async def account_info(self) -> dict[str, Any]:
        """What the account stores, and its limits, which are -1 where there are none."""
        return await self._ask("INFO", {})

    async def stream_info(self, stream: str, subjects: str = "") -> dict[str, Any]:
        """config, state and created of a stream; with subjects (a pattern) also how many messages each subject has."""
        request: dict[str, Any] = {"subjects_filter": subjects} if subjects else {}
        info = await self._ask("STREAM.INFO.%s" % stream, request)
        # The server gives 100,000 subjects at a time.
        while subjects and (found := len(info["state"].get("subjects") or {})) < info.get("total", 0):
            more = await self._ask("STREAM.INFO.%s" % stream, {**request, "offset": found})
            if not more["state"].get("subjects"):
                break
            info["state"]["subjects"].update(more["state"]["subjects"])
        return info

    async def streams_of(self, subject: str) -> list[str]:
        """The names of the streams that store messages of this subject, which may be a pattern."""
        found = await self._ask("STREAM.NAMES", {"subject": subject})
        return list(found.get("streams") or [])

    async def create_stream(self, config: dict[str, Any]) -> dict[str, Any]:
        return await self._ask("STREAM.CREATE.%s" % config["name"], config)

    async def update_stream(self, config: dict[str, Any]) -> dict[str, Any]:
        return await self._ask("STREAM.UPDATE.%s" % config["name"], config)

    async def purge(self, stream: str, sequence: int) -> int:
        """Remove the messages before this sequence; how many there were."""
        return int((await self._ask("STREAM.PURGE.%s" % stream, {"seq": sequence}))["purged"])

    async def consumers(self, stream: str, complete: bool = False) -> list[dict[str, Any]]:
        """The consumers of a stream, each with config and state. complete: NoAnswer where some do not answer."""
        found: list[dict[str, Any]] = []
        while True:
            page = await self._ask("CONSUMER.LIST.%s" % stream, {"offset": len(found)})
            found += page.get("consumers") or []
            silent = [*(page.get("missing") or []), *(page.get("offline") or [])]
            if complete and silent:
                raise NoAnswer("%d consumers of %s do not answer" % (len(silent), stream))
            if len(found) >= page.get("total", 0) or not page.get("consumers"):
                return found

    async def consumer_info(self, stream: str, name: str) -> dict[str, Any]:
        return await self._ask("CONSUMER.INFO.%s.%s" % (stream, name), {})

    async def create_consumer(self, stream: str, config: dict[str, Any], action: str = "create") -> dict[str, Any]:
        """Make a consumer; action "create" fails where there is another one of that name, "update" where there is
        none."""
        request = {"stream_name": stream, "config": config, "action": action}
        return await self._ask("CONSUMER.CREATE.%s.%s" % (stream, config["name"]), request)

    async def delete_consumer(self, stream: str, name: str) -> bool:
        """Whether there was one."""
        try:
            await self._ask("CONSUMER.DELETE.%s.%s" % (stream, name), {})
        except ApiError as error:
            if error.err_code == CONSUMER_NOT_FOUND:
                return False
            raise
        return True

    async def last_message(self, stream: str, subject: str) -> Stored | None:
        """The last message of exactly this subject, or None; by direct get, which can be permitted for one subject.

        Raises NoResponders too where the stream does not allow direct gets.
        """
        msg = await self.link.request("$JS.API.DIRECT.GET.%s.%s" % (stream, subject), b"", timeout=self._timeout)
        headers = dict(msg.headers or {})
        if "Status" in headers:
            if headers["Status"] == "404":
                return None
            raise ApiError(_number(headers["Status"]), 0, headers.get("Description", "no message"))
        return Stored(
            subject=headers["Nats-Subject"],
            sequence=int(headers["Nats-Sequence"]),
            stamp=nanoseconds(headers["Nats-Time-Stamp"]),
            headers={name: value for name, value in headers.items() if name not in _ADDED},
            payload=bytes(msg.data),
        )

    async def message_stamp(self, stream: str, sequence: int) -> int | None:
        """When the first message at or behind this sequence was stored (ns), or None where there is none."""
        found = await self.first_message(stream, sequence)
        return None if found is None else found[1]

    async def first_message(self, stream: str, sequence: int) -> tuple[int, int] | None:
        """Sequence and time (ns) of the first message at or behind this sequence, or None where there is none."""
        try:
            found = await self._ask("STREAM.MSG.GET.%s" % stream, {"seq": sequence, "next_by_subj": ">"})
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return int(found["message"]["seq"]), nanoseconds(found["message"]["time"])

    async def _ask(self, what: str, request: dict[str, Any]) -> dict[str, Any]:
        payload = json.dumps(request).encode() if request else b""
        return _body(await self.link.request("$JS.API." + what, payload, timeout=self._timeout))


def _body(answer: Message) -> dict[str, Any]:
    try:
        body = json.loads(answer.data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise NoAnswer("an answer that is no JSON: %r" % answer.data[:100])
    error = body.get("error")
    if error:
        # Whoever subscribes to the subject of a publish can answer it: nothing here may be taken on trust.
        said = error if isinstance(error, dict) else {}
        code, err_code = (_number(str(said.get(key))) for key in ("code", "err_code"))
        raise ApiError(code, err_code, str(said.get("description", "no reason given")))
    return body


def place(reply: str) -> Place | None:
    """What the reply subject of a delivered message says, or None where it is not one of JetStream's.

    ``$JS.ACK.<stream>.<consumer>.<times>.<sequence>.<delivery>.<stamp>.<pending>``, with a domain and an account's hash
    behind ACK and a random token at the end from servers that have them (ADR-15).
    """
    tokens = reply.split(".")
    if tokens[:2] != ["$JS", "ACK"]:
        return None
    if len(tokens) == 9:
        stream, consumer, *numbers = tokens[2:]
    elif len(tokens) >= 11:
        stream, consumer, *numbers = tokens[4:]
    else:
        return None
    try:
        times, sequence, delivery, stamp, pending = (int(number) for number in numbers[:5])
    except ValueError:
        return None
    return Place(stream, consumer, sequence, delivery, times, stamp, pending)


def nanoseconds(stamp: str) -> int:
    """A time as the API writes it (RFC 3339, up to 9 decimals) in ns since 1970."""
    match = _STAMP.match(stamp)
    if match is None:
        raise NoAnswer("a time that is none: %r" % stamp[:50])
    seconds, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(seconds + ("+00:00" if zone == "Z" else zone))
    except ValueError:
        raise NoAnswer("a time that is none: %r" % stamp) from None
    whole = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (whole.days * 86400 + whole.seconds) * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
