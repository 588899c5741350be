# SPDX-License-Identifier: GPL-3.0-or-later
"""What a message says about the bytes it carries: docs/wire.md as code. Pure.

A payload is one or more whole lines without the last newline. Where the bytes do not end at a newline, the message
says so: a line that is longer than a message goes on in the next one ("more"), or its file is finished ("end").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, Union
from urllib.parse import quote_from_bytes, unquote_to_bytes

from .errors import WireError
from .partition import is_host

# A message's bytes: what is received is received into a bytearray, and never copied.
Payload = Union[bytes, bytearray]
# What is sent need not be copied before.
Sendable = Union[Payload, memoryview]

MSG_ID = "Nats-Msg-Id"
SOURCE = "Shipper-Source"
LIFE = "Shipper-Life"
BEGIN = "Shipper-Begin"
END = "Shipper-End"
HEAD = "Shipper-Head"
PARTIAL = "Shipper-Partial"
LIVES = "Shipper-Lives"
SINCE = "Shipper-Since"
ENCODING = "Shipper-Encoding"

# What a server adds to a message that was asked for (a direct get).
ANSWER = ("Nats-Stream", "Nats-Subject", "Nats-Sequence")

_ANSWER, _NEEDED = frozenset(ANSWER), frozenset((SOURCE, LIFE, BEGIN, END, HEAD))

GZIP = "gzip"
MORE = "more"
FINISHED = "end"

# Subject, Nats-Msg-Id, our headers and the server's own on the way to a reader; payload and headers together may not
# exceed max_payload, or nats-server closes the connection.
HEADER_ROOM = 4096
# A path is at most 4096 bytes and three characters a byte when quoted; what does not fit is refused at the producer.
SOURCE_MAX_BYTES = 1024
# What a packed message may hold: a thousandth of it may be enough to send it, and to unpack it takes milliseconds.
UNPACKED_MOST = 1024 * 1024

_LIFE = re.compile(r"[0-9a-f]{32}\Z")
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")
_HEAD = re.compile(r"(0|[1-9][0-9]{0,3}):([0-9a-f]{32})\Z")
_OFFSET_MAX = 2**63 - 1


class Span(NamedTuple):
    """Where a message's bytes come from: [begin, end) of one life of a source file.

    end - begin is the payload's length and 1 more for the newline that is not sent, except where partial is set. Where
    packed is set the payload is compressed, newline included: see packing.py.
    head_length and head_hash name the file's first bytes (at most 1 KiB), 16 bytes of blake2b in hex. What is before
    since was published elsewhere: to another partition or stream.
    """

    source: bytes
    life: str
    begin: int
    end: int
    head_length: int
    head_hash: str
    partial: str | None = None
    packed: bool = False
    since: int = 0


def encode(host: str, span: Span, fresh: int = 0, lives: int | None = None) -> dict[str, str]:
    """The headers of a message of host that carries span. fresh above 0 gives it another id than before; lives is how
    many the producer's positions have begun, where that is known."""
    headers = {
        MSG_ID: "%s:%s:%d:%d%s" % (host, span.life, span.begin, span.end, "#%d" % fresh if fresh else ""),
        SOURCE: quote_from_bytes(span.source, safe="/"),
        LIFE: span.life,
        BEGIN: "%d" % span.begin,
        END: "%d" % span.end,
        HEAD: "%d:%s" % (span.head_length, span.head_hash),
    }
    if span.partial is not None:
        headers[PARTIAL] = span.partial
    if span.packed:
        headers[ENCODING] = GZIP
    if span.since:
        headers[SINCE] = "%d" % span.since
    if lives is not None:
        headers[LIVES] = "%d" % lives
    return headers


def decode(headers: Mapping[str, str] | None, payload_length: int) -> Span | None:
    """The span of a message, or None for a plain one, which is a message without any of our headers.

    Unknown headers are ignored; what a packed payload holds is not looked at here. Raises WireError where our headers
    are there but incomplete or contradict themselves: such a message is not taken for a plain line. So is a server's
    answer that somebody had sent to another host's subject.
    """
    if not headers:
        return None
    if not _ANSWER.isdisjoint(headers):
        raise WireError("a server's answer, not a host's message")
    if _NEEDED.isdisjoint(headers) and not any(name.startswith("Shipper-") for name in headers):
        return None
    try:
        source, life, head = headers[SOURCE], headers[LIFE], headers[HEAD]
        begin, end = headers[BEGIN], headers[END]
    except KeyError as missing:
        raise WireError("header missing: %s" % missing.args[0]) from None
    if _LIFE.match(life) is None:
        raise WireError("bad %s" % LIFE)
    if _NUMBER.match(begin) is None or _NUMBER.match(end) is None or int(end) > _OFFSET_MAX:
        raise WireError("bad offset")
    parsed_head = _HEAD.match(head)
    if parsed_head is None:
        raise WireError("bad %s" % HEAD)
    partial = headers.get(PARTIAL)
    if partial not in (None, MORE, FINISHED):
        raise WireError("bad %s" % PARTIAL)
    encoding = headers.get(ENCODING)
    if encoding not in (None, GZIP):
        raise WireError("bad %s" % ENCODING)
    since = headers.get(SINCE, "0")
    if _NUMBER.match(since) is None or int(since) > int(begin):
        raise WireError("bad %s" % SINCE)
    length = int(end) - int(begin)
    fits = length <= UNPACKED_MOST if encoding else length == payload_length + (partial is None)
    if length <= 0 or not fits:
        raise WireError("length and offsets disagree")
    return Span(
        source=_source_path(source),
        life=life,
        begin=int(begin),
        end=int(end),
        head_length=int(parsed_head.group(1)),
        head_hash=parsed_head.group(2),
        partial=partial,
        packed=encoding is not None,
        since=int(since),
    )


def lives_begun(headers: Mapping[str, str] | None) -> int:
    """How many lives the sender of a message had begun; 0 where it does not say, or nothing that makes sense."""
    text = (headers or {}).get(LIVES, "")
    return int(text) if _NUMBER.match(text) else 0


# A host has few paths, and hosts have the same ones.
@lru_cache(maxsize=4096)
def _source_path(quoted: str) -> bytes:
    path = unquote_to_bytes(quoted)
    parts = path.split(b"/")
    confined = all(part not in (b"", b".", b"..") and len(part) <= 255 for part in parts[1:])
    if not path.startswith(b"/") or len(path) > SOURCE_MAX_BYTES or b"\0" in path or not confined:
        raise WireError("bad %s" % SOURCE)
    return path


def subject_host(prefix: str, number: int, subject: str) -> str:
    """The host of a subject of this partition. Raises WireError where that part of the subject is not a host."""
    start = "%s.p%d." % (prefix, number)
    host = subject[len(start) :]
    if not subject.startswith(start) or not is_host(host):
        raise WireError("bad host")
    return host
