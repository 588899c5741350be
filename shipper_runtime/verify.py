# SPDX-License-Identifier: GPL-3.0-or-later
"""``shipper verify``: whether what this host's files held a moment ago has arrived.

It is asked beside the producer that runs, with the same settings: the files say what there is to ship, the producer's
positions what has been acknowledged, the broker whether these settings open a connection and the stream answers. It
changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .broker import connected
from .errors import ApiError, BrokerError, NoResponders, NotShipped, SettingError, StateError, printable
from .globs import check_patterns, expand, is_glob
from .identity import Key, Record
from .jetstream import JetStream
from .permissions import inbox_prefix
from .positions import NAME, UNREADABLE, parse
from .settings import ProducerSettings
from .siblings import Folders
from .terminal import put

_PAUSE = 0.25
_CHUNK = 64 * 1024
_NAMED = 3


@dataclass(frozen=True)
class Found:
    """A file to ship as it was found: its path, and how long it is up to its last complete line."""

    path: bytes
    size: int


@dataclass(frozen=True)
class Report:
    """What of the files has been acknowledged: behind has the missing bytes of each file that the producer knows,
    unknown are the files that it has not begun (it may not read them, or has only just started)."""

    files: int
    behind: dict[bytes, int]
    unknown: list[bytes]

    @property
    def nothing_begun(self) -> bool:
        return self.files > 0 and len(self.unknown) == self.files


def compare(found: Mapping[Key, Found], records: Iterable[Record]) -> Report:
    """Positions against files, by device and inode: pure."""
    offsets: dict[Key, int] = {}
    for record in records:
        if not record.codec:
            offsets[record.key] = max(offsets.get(record.key, 0), record.offset)
    behind, unknown = {}, []
    for key, file in found.items():
        if key not in offsets:
            unknown.append(file.path)
        elif offsets[key] < file.size:
            behind[file.path] = file.size - offsets[key]
    return Report(len(found), behind, sorted(unknown))


async def run(settings: ProducerSettings, *, patience: float, as_json: bool) -> None:
    """Print what was found, once all of it is acknowledged, or some of a large backlog is.

    Raises SettingError and BrokerError, StateError, and NotShipped where nothing has moved for so many seconds.
    """
    found = look(settings.files)
    began = time.monotonic()
    last = await _ask_broker(settings, patience)
    first: int | None = None
    while True:
        report = compare(found, _records(settings.state))
        left = sum(report.behind.values())
        first = left if first is None else first
        over = time.monotonic() - began > patience
        if not report.nothing_begun and (not left or (over and left < first)):
            break
        if over:
            raise NotShipped(_complaint(settings, report, patience))
        await asyncio.sleep(_PAUSE)
    _print(settings, report, last, as_json)


def look(patterns: Iterable[str]) -> dict[Key, Found]:
    """The files that hold something, by device and inode; what cannot even be looked at is nobody's fault here."""
    folders = Folders()
    found: dict[Key, Found] = {}
    for pattern in check_patterns(list(patterns)):
        for path in expand(pattern, folders) if is_glob(pattern) else [pattern]:
            with contextlib.suppress(OSError):
                status = os.stat(path)
                key = (status.st_dev, status.st_ino)
                if not stat.S_ISREG(status.st_mode) or not status.st_size:
                    continue
                try:
                    size = _complete(path, status.st_size)
                    if size:
                        found[key] = Found(path, size)
                except PermissionError:
                    # How much of it has arrived cannot be told, but whether it was begun.
                    found[key] = Found(path, 0)
    return found


def _complete(path: bytes, size: int) -> int:
    """The file's length up to and with its last newline, of the first size bytes."""
    with open(path, "rb") as file:
        end = size
        while end > 0:
            begin = max(0, end - _CHUNK)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            end = begin
    return 0


async def _ask_broker(settings: ProducerSettings, patience: float) -> int | None:
    """The sequence of the last message that the stream still has of this host; None where there is none to be had."""
    async with connected(
        settings.broker, "shipper verify", inbox_prefix("producer", settings.host), max(patience, 1.0)
    ) as link:
        if settings.stream is None:
            return None
        try:
            last = await JetStream(link).last_message(settings.stream, settings.subject)
        except NoResponders:
            raise BrokerError(
                "stream %s does not answer at %s: there is none, or it has no leader; see `shipper status`"
                % (settings.stream, link.url)
            ) from None
        except ApiError as error:
            raise BrokerError("stream %s says: %s" % (settings.stream, error)) from None
        return None if last is None else last.sequence


def _records(folder: str) -> list[Record]:
    path = os.path.join(folder, NAME)
    try:
        with open(path, "rb") as file:
            records = parse(file.read()).records
    except FileNotFoundError:
        return []
    except OSError as error:
        remedy = "its positions cannot be read (%s); run this as root or as the producer's user" % error.strerror
        raise SettingError("SHIPPER_STATE", folder, remedy) from None
    except UNREADABLE as error:
        raise StateError("%s: not a file of positions (%s)" % (printable(path), printable(str(error)))) from None
    return [record for of_source in records.values() for record in of_source]


def _complaint(settings: ProducerSettings, report: Report, patience: float) -> str:
    if report.nothing_begun:
        what = "the producer has begun none of %d files" % report.files
    else:
        named = ["%s lacks %d bytes" % (_path(path), size) for path, size in sorted(report.behind.items())]
        more = ["and %d more files" % (len(named) - _NAMED)] if len(named) > _NAMED else []
        what = ", ".join(named[:_NAMED] + more)
    return "%s does not ship to %s: after %ds %s; see the producer's log" % (
        settings.host, settings.subject, patience, what,
    )  # fmt: skip


def _print(settings: ProducerSettings, report: Report, last: int | None, as_json: bool) -> None:
    left = sum(report.behind.values())
    if as_json:
        answer = {
            "host": settings.host,
            "subject": settings.subject,
            "stream": settings.stream,
            "files": report.files,
            "not_begun": [_path(path) for path in report.unknown],
            "behind_bytes": left,
            "last_sequence": last,
        }
        put(json.dumps(answer))
        return
    shipped = report.files - len(report.unknown)
    put(
        "%s ships %d file%s to %s: %s%s"
        % (
            settings.host,
            shipped,
            "" if shipped == 1 else "s",
            settings.subject,
            "all of it has arrived" if not left else "it arrives, and %d bytes are left" % left,
            "" if not report.unknown else "; not begun: %s" % ", ".join(_path(p) for p in report.unknown[:_NAMED]),
        )
    )


def _path(path: bytes) -> str:
    return printable(os.fsdecode(path))
