# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers for Prometheus: counters and gauges, and a very small HTTP server that shows them.

The text format is https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4. Which metrics there are
is in docs/metrics.md.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import re
import socket
from collections.abc import Mapping
from typing import Callable, Union

from .errors import SettingError
from .service import Rarely
from .settings import Listen

logger = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_MAX_BYTES = 8192
# From the connection to the last byte of the answer.
REQUEST_TIMEOUT = 5.0
# A scraper needs one; whoever opens many must not take the descriptors of the files that are shipped.
CONNECTIONS_MOST = 16

Labels = tuple[str, ...]
# What a computed metric has at the moment: one number, or one for each tuple of label values.
Computed = Callable[[], Union[float, Mapping[Labels, float]]]

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[^ ]*) HTTP/1\.[01]\Z")
_complain = Rarely(logger.warning)


class Metric:
    """One metric: its values by label values, which are given in the order of labels."""

    def __init__(self, kind: str, name: str, text: str, labels: Labels, compute: Computed | None) -> None:
        self.name = name
        self._kind = kind
        self._text = text
        self._labels = labels
        self._compute = compute
        self._values: dict[Labels, float] = {}
        if not labels and compute is None:
            # From the start: a counter that appears only with its first event has no rate at that event.
            self._values[()] = 0

    def value(self, *labels: str) -> float:
        """What was set or counted, 0 if nothing was."""
        return self._values.get(labels, 0)

    def exposition(self) -> str:
        """HELP, TYPE and a line for each value. Raises what a computed metric's callable raises."""
        values = self._values
        if self._compute is not None:
            computed = self._compute()
            values = dict(computed) if isinstance(computed, Mapping) else {(): computed}
        lines = ["# HELP %s %s" % (self.name, _escaped(self._text)), "# TYPE %s %s" % (self.name, self._kind)]
        lines += ["%s%s %s" % (self.name, self._pairs(labels), _number(values[labels])) for labels in sorted(values)]
        return "\n".join(lines) + "\n"

    def _key(self, labels: Labels) -> Labels:
        if len(labels) != len(self._labels):
            raise ValueError("%s has the labels %s, not %s" % (self.name, self._labels, labels))
        return labels

    def _pairs(self, labels: Labels) -> str:
        pairs = ['%s="%s"' % (name, _quoted(value)) for name, value in zip(self._labels, self._key(labels))]
        return "{%s}" % ",".join(pairs) if pairs else ""


class Counter(Metric):
    """What only grows."""

    def add(self, amount: float = 1, *labels: str) -> None:
        """Count amount more. Raises ValueError where the labels are not the metric's."""
        key = self._key(labels)
        self._values[key] = self._values.get(key, 0) + amount


class Gauge(Metric):
    """What goes up and down."""

    def set(self, value: float, *labels: str) -> None:
        """Set to value. Raises ValueError where the labels are not the metric's."""
        self._values[self._key(labels)] = value

    def remove(self, *labels: str) -> None:
        """Show no value for these labels any more: the partition is somebody else's now."""
        self._values.pop(labels, None)


class Registry:
    """The metrics of one program. Each is registered once, at the start; a bad name raises ValueError there.

    Where value is given it is called at each scrape; a metric whose callable raises is left out of that scrape.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    def counter(self, name: str, text: str, labels: Labels = (), value: Computed | None = None) -> Counter:
        """A counter; its name ends in _total, as Prometheus wants it."""
        if not name.endswith("_total"):
            raise ValueError("a counter's name ends in _total: %r" % name)
        metric = Counter("counter", name, text, labels, value)
        self._register(metric, labels)
        return metric

    def gauge(self, name: str, text: str, labels: Labels = (), value: Computed | None = None) -> Gauge:
        """A gauge, in base units: seconds, bytes."""
        metric = Gauge("gauge", name, text, labels, value)
        self._register(metric, labels)
        return metric

    def exposition(self) -> bytes:
        """All metrics in the text format, by name. Raises nothing."""
        parts = []
        for name in sorted(self._metrics):
            try:
                parts.append(self._metrics[name].exposition())
            except Exception as error:  # whatever a callable does, the others are shown
                _complain("The metric %s cannot be computed: %r", name, error)
        # A label may hold what is no text, such as a surrogate from a path.
        return "".join(parts).encode("utf-8", "replace")

    def _register(self, metric: Metric, labels: Labels) -> None:
        if _NAME.match(metric.name) is None or metric.name in self._metrics:
            raise ValueError("a metric's name that is bad or taken: %r" % metric.name)
        for label in labels:
            if _LABEL.match(label) is None or label.startswith("__"):
                raise ValueError("a bad label: %r" % label)
        self._metrics[metric.name] = metric


async def serve(registry: Registry, listen: Listen) -> asyncio.Server:
    """Serve GET /metrics until the server is closed. Nothing that a client does is raised into the program.

    Raises SettingError where it cannot listen there.
    """
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            if connections <= CONNECTIONS_MOST:
                await asyncio.wait_for(_answer(registry, reader, writer), REQUEST_TIMEOUT)
        except (OSError, asyncio.TimeoutError):
            pass
        except Exception as error:  # a scraper must not stop the shipping of logs
            _complain("A request for metrics failed: %r", error)
        finally:
            connections -= 1
            # Not close() alone: that would wait for a client that does not read.
            writer.transport.abort()

    try:
        return await asyncio.start_server(answer, listen.host, listen.port, limit=REQUEST_MAX_BYTES)
    except (OSError, UnicodeError) as error:
        shown = "%s:%d" % ("[%s]" % listen.host if ":" in listen.host else listen.host, listen.port)
        raise SettingError("SHIPPER_METRICS", shown, _remedy(error)) from None


async def _answer(registry: Registry, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    status, body, more = _response(registry, await _head(reader))
    head = ["HTTP/1.1 " + status, "Content-Length: %d" % len(body), "Connection: close", *more, "", ""]
    writer.write("\r\n".join(head).encode() + body)
    await writer.drain()
    # The end of what is written, then wait for the client's: closing at once could cut the answer off.
    writer.write_eof()
    while await reader.read(REQUEST_MAX_BYTES):
        pass


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    """The request's head; None where it is too long, or ends in the midst."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.LimitOverrunError, asyncio.IncompleteReadError):
        return None


def _response(registry: Registry, head: bytes | None) -> tuple[str, bytes, list[str]]:
    """Status, body and more headers for a request."""
    plain = ["Content-Type: text/plain; charset=utf-8"]
    match = _REQUEST_LINE.match((head or b"").partition(b"\r\n")[0])
    if match is None:
        return "400 Bad Request", b"this is no request that is understood here\n", plain
    method, path = match.groups()
    if path.partition(b"?")[0] != b"/metrics":
        return "404 Not Found", b"there is only /metrics\n", plain
    if method != b"GET":
        return "405 Method Not Allowed", b"there is only GET\n", [*plain, "Allow: GET"]
    return "200 OK", registry.exposition(), ["Content-Type: " + CONTENT_TYPE]


def _remedy(error: Exception) -> str:
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "this host is not known; use an address of this machine, such as 127.0.0.1"
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return "another program listens there; use another port, a different one for each worker"
    # Newer Pythons pass such an address over, and then say that none is left.
    if number == errno.EADDRNOTAVAIL or "could not bind on any address" in str(error):
        return "this machine does not have that address; use one of its own, such as 127.0.0.1"
    if number in (errno.EACCES, errno.EPERM):
        return "this user may not listen there; use a port above 1023"
    return "it cannot listen there: %s" % error


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', '\\"')


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return "%d" % value if value == int(value) else repr(float(value))
