# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a command a service: signals, log lines, and word to systemd."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import time
from typing import Callable

from . import signals

logger = logging.getLogger(__name__)

_REMEMBERED = 100


class Service:
    """A program that runs until it is told to stop.

    A signal only sets a flag; who runs the program reads it and stops from top to bottom. systemd is told READY once,
    a STATUS line, and WATCHDOG each time that the loop has made progress, at most twice in the watchdog's interval.
    """

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self._notify_socket = os.environ.get("NOTIFY_SOCKET")
        self._watchdog_interval = int(os.environ.get("WATCHDOG_USEC") or 0) / 1_000_000 / 2
        self._fed = 0.0
        self._ready = False

    def catch_signals(self) -> None:
        """SIGTERM, SIGINT and SIGHUP stop the program, also if they came before; a second one changes nothing."""
        loop = asyncio.get_running_loop()
        for number in signals.STOPPING:
            # nohup has it ignored.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, self.stopping.set)
        signals.let()

    def ready(self, status: str) -> None:
        """Say that the program does its work, and in a few words which."""
        self._notify(("" if self._ready else "READY=1\n") + "STATUS=" + status)
        self._ready = True

    def progress(self) -> None:
        """Feed the watchdog: called by the loop that does the work, never by a timer of its own."""
        if self._watchdog_interval and time.monotonic() - self._fed >= self._watchdog_interval:
            self._fed = time.monotonic()
            self._notify("WATCHDOG=1")

    def stopped(self) -> None:
        """Say that the program is on its way out."""
        self._notify("STOPPING=1")

    def _notify(self, text: str) -> None:
        # sd_notify(3): a datagram to the socket; @ stands for the NUL of an abstract name.
        if not self._notify_socket:
            return
        address = self._notify_socket
        if address.startswith("@"):
            address = "\0" + address[1:]
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(text.encode(), address)


class Rarely:
    """Says a thing at once when it is new, and again only after a while as long as it stays."""

    def __init__(self, say: Callable[..., None], again_after: float = 60.0) -> None:
        self._say = say
        self._again_after = again_after
        self._said: dict[str, float] = {}

    def __call__(self, message: str, *args: object) -> None:
        text = message % args
        now = time.monotonic()
        if now - self._said.get(text, float("-inf")) >= self._again_after:
            if len(self._said) >= _REMEMBERED:
                self._said.clear()
            self._said[text] = now
            self._say("%s", text)

    def forget(self) -> None:
        """It is over: whatever comes back is new."""
        self._said.clear()


def start_logging() -> None:
    """Log to stderr: with a time in front, but where stderr is the journal with systemd's level prefix instead."""
    handler = logging.StreamHandler(sys.stderr)
    if _stderr_is_journal():
        handler.setFormatter(_JournalFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # nats-py's own lines repeat what the broker says, with tracebacks.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def raise_descriptor_limit() -> None:
    """As many open files as this process may have: tailing thousands of files needs them."""
    _nothing, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _JournalFormatter(logging.Formatter):
    # sd-daemon(3): the levels that systemd reads from the beginning of a line.
    _PREFIXES = ((logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (0, "<6>"))

    def format(self, record: logging.LogRecord) -> str:
        prefix = next(prefix for level, prefix in self._PREFIXES if record.levelno >= level)
        return prefix + super().format(record).replace("\n", "\n" + prefix)


def _stderr_is_journal() -> bool:
    # systemd.exec(5): JOURNAL_STREAM holds device and inode of the stream, since a child's may be another one.
    # There may be no stderr at all.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        status = os.fstat(sys.stderr.fileno())
        return os.environ.get("JOURNAL_STREAM") == "%d:%d" % (status.st_dev, status.st_ino)
    return False
