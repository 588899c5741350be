# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a message's bytes go: whose they are, and the name of the file. Remembers what it has worked out."""

from __future__ import annotations

from .output import OutputPattern
from .wire import subject_host

_CACHED_MOST = 65536


class Addresses:
    """The hosts behind subjects, and the names of files in the period that at() has set."""

    def __init__(self, prefix: str, output: OutputPattern) -> None:
        self.period = -1
        self._prefix = prefix
        self._output = output
        self._hosts: dict[str, str] = {}
        self._names: dict[bytes | None, bytes] = {}

    def at(self, stamp: int) -> None:
        """From now on files are those of the period that holds this time (ns)."""
        period = self._output.period(stamp // 10**9)
        if period != self.period:
            self.period = period
            self._names.clear()

    def host(self, number: int, subject: str) -> str:
        """Raises WireError where the subject is not one of a host in this partition."""
        host = self._hosts.get(subject)
        if host is None:
            host = subject_host(self._prefix, number, subject)
            if len(self._hosts) >= _CACHED_MOST:
                self._hosts.clear()
            self._hosts[subject] = host
        return host

    def name(self, source: bytes | None) -> bytes:
        """The file's name below its host's folder; source is None for plain messages."""
        name = self._names.get(source)
        if name is None:
            if len(self._names) >= _CACHED_MOST:
                self._names.clear()
            name = self._names[source] = self._output.name(source, self.period)
        return name
