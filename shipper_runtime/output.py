# SPDX-License-Identifier: GPL-3.0-or-later
"""SHIPPER_OUTPUT: the name of an archive file below its host's folder. Pure.

A pattern is strftime's, in UTC, with at most one {source} in it, which stands for the path of the source file. All
that stands before and behind {source} has a fixed width. That is why names of different sources or of different
times never are the same, and why a name can be told from a foreign one and compared with a time when it expires.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from hashlib import blake2b
from typing import Union

from .errors import SettingError

VARIABLE = "SHIPPER_OUTPUT"
PLAIN = b"plain"
PACKED = b".gz"
"""What the names of compressed files end with, behind the pattern's own."""

_SOURCE = "{source}"
_WITHOUT_TIME = "-%Y%m%d%H%M"
_COMPONENT_MAX_BYTES = 255
# What a pattern must leave of a component for the source's part of it: a shortened one takes 33 bytes of it.
_SOURCE_ROOM = 64
_PLAIN_TAKEN = re.compile(rb"plain~*\Z")


@dataclass(frozen=True)
class _Field:
    """A directive: what must stand in front of it so that names sort, what is known behind it, and its look."""

    needs: str
    gives: str
    look: bytes


# Units, one letter each: Y year, m month, d day, H hour, M minute, S second; G and V the year and week of ISO 8601.
_DATE = "YmdGV"
_TWO_DIGITS = rb"[0-9]{2}"
_FIELDS = {
    "Y": _Field("", "Y", rb"[0-9]{4}"),
    "m": _Field("Y", "m", rb"(?:0[1-9]|1[0-2])"),
    "d": _Field("m", _DATE, rb"(?:0[1-9]|[12][0-9]|3[01])"),
    "j": _Field("Y", _DATE, rb"[0-3][0-9]{2}"),
    "G": _Field("", "G", rb"[0-9]{4}"),
    "V": _Field("G", "V", rb"[0-5][0-9]"),
    "u": _Field("V", _DATE, rb"[1-7]"),
    "H": _Field("d", "H", rb"[0-2][0-9]"),
    "M": _Field("H", "M", rb"[0-5][0-9]"),
    "S": _Field("M", "S", rb"[0-5][0-9]"),
    "s": _Field("", _DATE + "HMS", rb"[0-9]{10}"),
    "U": _Field("Y", "", rb"[0-5][0-9]"),
    "W": _Field("Y", "", rb"[0-5][0-9]"),
    # These add nothing, and sort only where what they repeat stands in front of them.
    "y": _Field("Y", "", _TWO_DIGITS),
    "b": _Field("m", "", rb"[A-Z][a-z]{2}"),
    "a": _Field("d", "", rb"[A-Z][a-z]{2}"),
}
_SHORT_FOR = {"%F": "%Y-%m-%d", "%T": "%H:%M:%S", "%R": "%H:%M"}
_TOKEN = re.compile(r"%.|%\Z|\{source\}|[{}]|[^%{}]+", re.DOTALL)

# A literal, or a directive's letter.
_Token = Union[bytes, str]


@dataclass(frozen=True)
class OutputPattern:
    """Names files: pattern is the text in force, rotate the seconds of a period, packed whether they are compressed.

    Periods are counted from 1970-01-01 00:00 UTC, which was a Thursday: a period of one week begins on Thursdays.
    """

    pattern: str
    rotate: int
    has_source: bool
    _before: tuple[_Token, ...] = field(repr=False)
    _after: tuple[_Token, ...] = field(repr=False)
    _look: re.Pattern[bytes] = field(repr=False)
    packed: bool = False

    def period(self, stamp: float) -> int:
        """The start of the period that holds this time; both in seconds since 1970 UTC."""
        return int(stamp // self.rotate) * self.rotate

    def name(self, source: bytes | None, start: int) -> bytes:
        """The path, relative to the host's folder, for bytes of a source in the period that begins at start.

        source is an absolute, normal path, or None for plain messages. Different sources get different names, also
        where a part is too long for a file system and is shortened.
        """
        before, after = _render(self._before, start), _render(self._after, start)
        if not self.has_source:
            return before
        parts = [PLAIN] if source is None else source[1:].split(b"/")
        if source is not None and _PLAIN_TAKEN.match(parts[0]):
            # A file /plain must not share a name with plain messages, nor /plain~ with /plain.
            parts[0] += b"~"
        last = len(parts) - 1
        for number, part in enumerate(parts):
            room = _COMPONENT_MAX_BYTES
            room -= len(before.rpartition(b"/")[2]) if number == 0 else 0
            room -= len(after.partition(b"/")[0]) if number == last else 0
            parts[number] = _shortened(part, room)
        return before + b"/".join(parts) + after

    def first_kept(self, now: float, max_age: int) -> int:
        """The start of the oldest period whose end is less than max_age seconds ago."""
        return max(0, self.period(now - max_age))

    def is_older(self, name: bytes, start: int) -> bool:
        """Whether name, relative to a host's folder, is one of this pattern's and of a time before start's names. Where
        files are compressed so are the names of those that were not yet."""
        if self.packed and self._look.match(name) is None:
            name += PACKED
        if self._look.match(name) is None:
            return False
        before, after = _render(self._before, start), _render(self._after, start)
        return (name[: len(before)], name[len(name) - len(after) :]) < (before, after)


def parse_output(pattern: str, rotate_seconds: int, packed: bool = False) -> OutputPattern:
    """The pattern of SHIPPER_OUTPUT for periods of so many seconds, and files that are compressed. Raises SettingError.

    Refused is what would not name exactly one file below the host's folder for a source and a period, and what would
    not sort by time: a directive must stand behind the next coarser one (%d behind %m behind %Y), or repeat what is
    known there. From days on a pattern may be coarser than the period, for there is no other way to a month's file.
    """
    text = pattern if "%" in pattern else pattern + _WITHOUT_TIME
    tokens = _tokens(pattern, text)
    known: set[str] = set()
    for token in tokens:
        if isinstance(token, str) and token != _SOURCE:
            needs, gives = _FIELDS[token].needs, _FIELDS[token].gives
            if needs and needs not in known:
                remedy = "names would not sort by time: %%%s must stand behind %%%s; use %%Y%%m%%d and then %%H%%M%%S"
                raise SettingError(VARIABLE, pattern, remedy % (token, needs))
            known.update(gives)
    _check_granularity(pattern, known, rotate_seconds)
    if packed:
        tokens.append(PACKED)
    at = tokens.index(_SOURCE) if _SOURCE in tokens else len(tokens)
    before, after = tuple(tokens[:at]), tuple(tokens[at + 1 :])
    has_source = at < len(tokens)
    _check_path(pattern, _render(before, 0), _render(after, 0), has_source)
    look = _look(before) + (b".+" if has_source else b"") + _look(after) + rb"\Z"
    return OutputPattern(text, rotate_seconds, has_source, before, after, re.compile(look, re.DOTALL), packed)


def _tokens(pattern: str, text: str) -> list[_Token]:
    tokens: list[_Token] = []
    for token in _TOKEN.findall(text):
        if token == _SOURCE:
            if _SOURCE in tokens:
                raise SettingError(VARIABLE, pattern, "name {source} once")
            tokens.append(_SOURCE)
        elif token in ("{", "}"):
            raise SettingError(VARIABLE, pattern, "of words in braces there is only {source}; take the others out")
        elif token in _SHORT_FOR:
            tokens += _tokens(pattern, _SHORT_FOR[token])
        elif token == "%%":
            tokens.append(b"%")
        elif not token.startswith("%"):
            tokens.append(_literal(pattern, token))
        elif token[1:] in _FIELDS:
            tokens.append(token[1:])
        else:
            remedy = "%s has no fixed width that sorts by time; use %%Y%%m%%d, %%H%%M%%S, %%j, %%s, %%G-W%%V, or %%%%"
            raise SettingError(VARIABLE, pattern, remedy % (token + " at the end" if token == "%" else token))
    return tokens


def _literal(pattern: str, text: str) -> bytes:
    if any(char < " " or char == "\x7f" for char in text):
        raise SettingError(VARIABLE, pattern, "a file's name here cannot hold control characters; take them out")
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        raise SettingError(VARIABLE, pattern, "this cannot be a file's name here; use ASCII") from None


def _check_granularity(pattern: str, known: set[str], rotate: int) -> None:
    if not known:
        raise SettingError(VARIABLE, pattern, "names would not tell the time; add %Y%m%d")
    for unit, seconds, period in (("H", 86400, "1d"), ("M", 3600, "1h"), ("S", 60, "1m")):
        if rotate < seconds and unit not in known:
            remedy = "periods shorter than %s would share a name; add %%%s, or set SHIPPER_ROTATE to %s or more"
            raise SettingError(VARIABLE, pattern, remedy % (period, unit, period))


def _check_path(pattern: str, before: bytes, after: bytes, has_source: bool) -> None:
    parts = (before + (b"\0" if has_source else b"") + after).split(b"/")
    if parts[0] == b"" and len(parts) > 1:
        raise SettingError(VARIABLE, pattern, "names are relative to the host's folder; take the leading / out")
    if any(part in (b"", b".", b"..") for part in parts):
        raise SettingError(VARIABLE, pattern, "a part between slashes is empty, . or ..; take it out")
    for part in parts:
        if len(part) > _COMPONENT_MAX_BYTES - (_SOURCE_ROOM if b"\0" in part else 0):
            raise SettingError(VARIABLE, pattern, "a part between slashes is too long for a file's name; shorten it")


@lru_cache(maxsize=64)
def _render(tokens: tuple[_Token, ...], start: int) -> bytes:
    moment = datetime.fromtimestamp(start, timezone.utc)
    rendered = b""
    for token in tokens:
        if isinstance(token, bytes):
            rendered += token
        elif token == "s":  # strftime's own takes the moment for local time
            rendered += b"%010d" % start
        else:
            rendered += moment.strftime("%" + token).encode("ascii")
    return rendered


def _look(tokens: tuple[_Token, ...]) -> bytes:
    return b"".join(re.escape(token) if isinstance(token, bytes) else _FIELDS[token].look for token in tokens)


def _shortened(part: bytes, room: int) -> bytes:
    if len(part) <= room:
        return part
    return part[: room - 33] + b"~" + blake2b(part, digest_size=16).hexdigest().encode("ascii")
