# SPDX-License-Identifier: GPL-3.0-or-later
"""Compressed blocks. Each is a member of a gzip file (RFC 1952): one behind the other they are a file that zcat reads.

A member says in its header how long it is (an extra field, as BGZF does it): a file's members are found without
unpacking them. Pure.
"""

from __future__ import annotations

import struct
import zlib

from .errors import WireError
from .wire import Payload, Sendable, Span

LEVEL = 1
"""zlib's fastest: a third of the bytes at 150 MB/s a core; 6 takes four times as long for a sixth less."""

# Deflate, with an extra field, without a time and a name, so that the same bytes are always packed the same.
MAGIC = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x08\0LS\x04\0"
HEADER = struct.Struct("<%dsI" % len(MAGIC))
_TRAILER = struct.Struct("<II")
LEAST = HEADER.size + _TRAILER.size
_GZIP = 16 + zlib.MAX_WBITS


class Packed:
    """One member, and how many bytes (size) it holds. Whether they are all right only plain() knows."""

    __slots__ = ("data", "size")

    def __init__(self, data: Payload, size: int) -> None:
        """Raises WireError where it does not look like one of so many bytes."""
        if len(data) < LEAST or HEADER.unpack_from(data) != (MAGIC, len(data)):
            raise WireError("not a gzip member")
        if _TRAILER.unpack_from(data, len(data) - _TRAILER.size)[1] != size:
            raise WireError("length and offsets disagree")
        self.data = data
        self.size = size

    def __len__(self) -> int:
        return len(self.data)

    def plain(self) -> bytes:
        """What was packed. Raises WireError."""
        return unpack(self.data, self.size)


def pack(level: int, *parts: Sendable) -> bytes:
    """The parts, which are not empty, one behind the other as one member; level is zlib's, 1 to 9."""
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    pieces, check, size = [b""], 0, 0
    for part in parts:
        pieces.append(deflate.compress(part))
        check = zlib.crc32(part, check)
        size += len(part)
    pieces += [deflate.flush(), _TRAILER.pack(check, size)]
    pieces[0] = HEADER.pack(MAGIC, HEADER.size + sum(map(len, pieces)))
    return b"".join(pieces)


def unpack(data: Payload, size: int) -> bytes:
    """What a member holds, and never more than size bytes. Raises WireError where that is not what it says."""
    inflate = zlib.decompressobj(_GZIP)
    try:
        plain = inflate.decompress(data, size + 1)
    except zlib.error:
        raise WireError("damaged gzip member") from None
    if len(plain) != size or not inflate.eof or inflate.unused_data:
        raise WireError("damaged gzip member")
    return plain


def received(span: Span, payload: Payload) -> Payload | Packed:
    """A message's payload as its span says that it is. Raises WireError."""
    return Packed(payload, span.end - span.begin) if span.packed else payload
