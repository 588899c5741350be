# SPDX-License-Identifier: GPL-3.0-or-later
"""``shipper ledger``: what an archive remembers of its hosts, for longer than a stream does. Reads, never writes."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from dataclasses import asdict, dataclass

from .confined import absolute
from .errors import LedgerError, printable
from .ledger import FOLDER, NAME
from .tables import span, table
from .terminal import put

_HOLES_SHOWN = 1000


@dataclass(frozen=True)
class Seen:
    """When something of a host was committed last, by this archive's own clock. Plain publishers are not remembered."""

    host: str
    stream: str
    last_seen_seconds: float


@dataclass(frozen=True)
class HoleRow:
    """Bytes [first, last) of a host's source that were published and never came, and how long ago that was recorded; or
    with no host messages [first, last) of the stream."""

    stream: str
    host: str
    source: str
    first: int
    last: int
    seconds: float


@dataclass(frozen=True)
class History:
    """there tells whether the directory has a ledger at all: without streams there is none."""

    directory: str
    there: bool
    hosts: list[Seen]
    holes: list[HoleRow]


def read(directory: str, now: int) -> History:
    """What the ledger of an archive knows; now is in ns. Raises SettingError, and LedgerError where it cannot tell."""
    path = os.path.join(absolute(directory), FOLDER, NAME)
    unreadable = "%s: it cannot be read: %s; run this as root or as the consumer's user"
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return History(directory, False, [], [])
    except OSError as error:
        raise LedgerError(unreadable % (printable(path), error.strerror)) from None
    try:
        with contextlib.closing(sqlite3.connect("file:%s?mode=ro" % _quoted(path), uri=True, timeout=10)) as database:
            seen = database.execute(
                "SELECT host, stream, max(used) FROM lives GROUP BY host, stream ORDER BY host, stream"
            ).fetchall()
            holes = database.execute(
                "SELECT stream, host, source, first, last, at FROM holes ORDER BY number DESC LIMIT ?", [_HOLES_SHOWN]
            ).fetchall()
    except sqlite3.Error as error:
        raise LedgerError(unreadable % (printable(path), printable(str(error)))) from None
    return History(
        directory,
        True,
        [Seen(host, stream, max(0, now - used) / 1e9) for host, stream, used in seen],
        [
            HoleRow(stream, host, os.fsdecode(source), first, last, max(0, now - at) / 1e9)
            for stream, host, source, first, last, at in reversed(holes)
        ],
    )


def run(directory: str, *, as_json: bool) -> None:
    """Print it. Raises LedgerError."""
    history = read(directory, time.time_ns())
    if as_json:
        put(json.dumps(asdict(history)))
    elif not history.there:
        put("%s has no ledger: nothing was archived there from streams" % printable(directory))
    else:
        put(host_table(history))
        if history.holes:
            put("\n" + hole_table(history))


def host_table(history: History) -> str:
    """The hosts as text."""
    rows = [(seen.host, seen.stream, span(seen.last_seen_seconds, " ago")) for seen in history.hosts]
    return table(("HOST", "STREAM", "SEEN"), rows, right=(2,))


def hole_table(history: History) -> str:
    """The holes as text; what is counted is bytes of a host's file, or messages where there is no host."""
    rows = [
        (
            "%d to %d" % (hole.first, hole.last - 1), "bytes" if hole.host else "messages", hole.stream,
            hole.host or "-", printable(hole.source) if hole.source else "-", span(hole.seconds, " ago"),
        )
        for hole in history.holes
    ]  # fmt: skip
    return table(("MISSING", "OF", "STREAM", "HOST", "SOURCE", "FOUND"), rows, right=(5,))


def _quoted(path: str) -> str:
    # https://www.sqlite.org/uri.html
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
