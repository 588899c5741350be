# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be written for a message: nothing twice, nothing reordered, what is missing counted. Pure.

Where sources share a file their lines must stay whole, so that a line's pieces are kept aside until it is complete.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Callable, NamedTuple

from .packing import Packed
from .wire import FINISHED, Payload, Span

LIVES_PER_HOST = 1024
HOSTS = 16384
# A line longer than this is cut in two where sources share a file; a host's unfinished lines have this much together.
ASIDE_MOST = 64 * 1024 * 1024
_STEP_BACK_TAKEN = 3600 * 10**9


class Taken(NamedTuple):
    """data is to be appended, packed only if what was taken was; missing bytes of the source lie before it; repeated
    ones had come before and are not in it; cut says that a line had to be written in two."""

    data: Payload | Packed
    missing: int = 0
    repeated: int = 0
    cut: bool = False


class SteadyTime:
    """A clock that does not run backwards: what came later never goes to an earlier file. In ns since 1970.

    A step back of more than an hour is taken, for it means that the time before was wrong.
    """

    def __init__(self, latest: int = 0) -> None:
        self.latest = latest

    def at(self, stamp: int) -> int:
        """The time to use for something that came at stamp."""
        if stamp > self.latest or stamp < self.latest - _STEP_BACK_TAKEN:
            self.latest = stamp
        return self.latest


class Known(NamedTuple):
    """A life as it was left: which byte comes next, and what is kept aside."""

    life: str
    next: int
    aside: bytes


class _Life:
    __slots__ = ("aside", "next")

    def __init__(self, begin: int) -> None:
        self.next = begin
        self.aside: list[Payload] = []


class _Host:
    __slots__ = ("aside_bytes", "lives")

    def __init__(self) -> None:
        self.lives: OrderedDict[str, _Life] = OrderedDict()
        self.aside_bytes = 0

    def put_aside(self, life: _Life, data: Payload) -> None:
        life.aside.append(data)
        self.aside_bytes += len(data)

    def complete(self, life: _Life, data: Payload) -> Payload:
        """What was kept aside of a line, and data behind it."""
        if not life.aside:
            return data
        self.aside_bytes -= sum(map(len, life.aside))
        whole = b"".join((*life.aside, data))
        life.aside.clear()
        return whole


class Intake:
    """Knows for each host and life of a source file which byte comes next.

    A life that is not known is accepted where it begins. So is one that was forgotten: each host has its own limit,
    and the hosts that were silent for longest go first. packed says whether what comes packed may stay so.

    recall, if it is given, tells what is remembered elsewhere of a host's lives, the one that was used longest ago
    first. Then changes() is what is to be remembered, and until settle() says that it is, its hosts stay.
    """

    def __init__(
        self,
        *,
        whole_lines: bool,
        packed: bool = False,
        hosts: int = HOSTS,
        lives: int = LIVES_PER_HOST,
        recall: Callable[[str], Iterable[Known]] | None = None,
    ) -> None:
        self._whole_lines = whole_lines
        self._packed = packed
        self._recall = recall
        self._changed: dict[tuple[str, str], None] = {}
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._hosts_most = hosts
        self._lives_most = lives

    def take(self, name: str, span: Span, payload: Payload | Packed) -> Taken:
        """What to append for a message of a host; span is as wire.decode checked it against payload. What is a
        bytearray is changed and kept. Raises WireError where it cannot be unpacked, and then nothing has been taken;
        what may stay packed is unpacked only if it has to be cut or joined."""
        host = self._host(name)
        life = host.lives.get(span.life)
        next_ = span.begin if life is None else life.next
        repeated = max(0, min(next_, span.end) - span.begin)
        # What went elsewhere is not missing.
        missing = max(0, span.begin - max(next_, span.since))
        comes_again = span.begin + repeated == span.end
        if isinstance(payload, Packed) and not comes_again and self._touches(host, life, span, repeated):
            payload = payload.plain()
        forgotten: Payload = b""
        if life is None:
            life = host.lives[span.life] = _Life(span.begin)
            if len(host.lives) > self._lives_most:
                gone, oldest = host.lives.popitem(last=False)
                self._note(name, gone)
                forgotten = host.complete(oldest, b"\n") if oldest.aside else b""
        else:
            host.lives.move_to_end(span.life)
        if comes_again:
            return Taken(forgotten, 0, repeated)
        self._note(name, span.life)
        life.next = span.end
        if isinstance(payload, Packed):
            return Taken(payload, missing)
        data = payload
        if span.partial is None and not span.packed:
            data += b"\n"
        if repeated:
            data = data[repeated:]
        if not self._whole_lines:
            return Taken(data, missing, repeated)
        if next_ < span.begin and life.aside:
            forgotten += host.complete(life, b"\n")
        data, cut = _whole_lines(host, life, data, span.partial == FINISHED)
        return Taken(forgotten + data if forgotten else data, missing, repeated, cut)

    def _touches(self, host: _Host, life: _Life | None, span: Span, repeated: int) -> bool:
        """Whether what a message holds is cut, or joined with something."""
        if repeated or not self._packed:
            return True
        if not self._whole_lines:
            return False
        return span.partial is not None or bool(len(host.lives) >= self._lives_most if life is None else life.aside)

    def changes(self) -> tuple[list[tuple[str, Known]], list[tuple[str, str]]]:
        """What changed since settle(): lives of hosts as they are now, and the (host, life) that were forgotten."""
        kept, gone = [], []
        for name, key in self._changed:
            life = self._hosts[name].lives.get(key)
            if life is None:
                gone.append((name, key))
            else:
                kept.append((name, Known(key, life.next, b"".join(life.aside))))
        return kept, gone

    def settle(self) -> None:
        """What changed is remembered."""
        self._changed.clear()
        self._trim()

    def _note(self, name: str, life: str) -> None:
        if self._recall is not None:
            self._changed[name, life] = None

    def leave(self) -> list[tuple[str, bytes]]:
        """For each host what is kept aside, completed with newlines; it is not kept any longer."""
        left = []
        for name, host in self._hosts.items():
            data = b"".join(host.complete(life, b"\n") for life in host.lives.values() if life.aside)
            if data:
                left.append((name, data))
        return left

    def _host(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is not None:
            self._hosts.move_to_end(name)
            return host
        host = self._hosts[name] = _Host()
        for known in self._recall(name) if self._recall is not None else ():
            life = host.lives[known.life] = _Life(known.next)
            if known.aside:
                host.put_aside(life, known.aside)
        if not self._changed:
            self._trim()
        return host

    def _trim(self) -> None:
        """Forget the hosts that were silent for longest. Nothing has changed that is not remembered elsewhere."""
        for _turn in range(len(self._hosts) - self._hosts_most):
            oldest = next(iter(self._hosts))
            if self._hosts[oldest].aside_bytes and self._recall is None:
                self._hosts.move_to_end(oldest)
            else:
                del self._hosts[oldest]


def _whole_lines(host: _Host, life: _Life, data: Payload, finished: bool) -> tuple[Payload, bool]:
    """The lines that data completes; what follows the last newline is kept aside. And whether a line was cut."""
    if not life.aside and data.endswith(b"\n"):
        return data, False
    end = data.rfind(b"\n") + 1
    lines = host.complete(life, data[:end]) if end else b""
    if end < len(data):
        host.put_aside(life, data[end:])
    cut = host.aside_bytes > ASIDE_MOST
    if life.aside and (finished or cut):
        lines += host.complete(life, b"\n")
    return lines, cut
