# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for a file's lock, in turn with others, while everything else goes on."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading

# Those who were left waiting for somebody who hangs must not become ever more.
_THREADS_MOST = 200


class Turn:
    """One's place among those who wait for the lock (flock) of an open file. The kernel gives it to who asked first, so
    that nobody starves; who only tries again and again may never come at the right moment.

    Until it has come the file must not be used but to be closed: the lock is the open file's, whoever asked for it.
    """

    def __init__(self, fd: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._come: asyncio.Future[None] = self._loop.create_future()
        # A thread that may have to be left waiting: a daemon, so that a stop need not wait for whoever has the lock.
        if threading.active_count() < _THREADS_MOST:
            # The same open file, so the lock is fd's, and goes when both are closed.
            threading.Thread(target=self._wait, args=[os.dup(fd)], name="turn", daemon=True).start()

    async def within(self, seconds: float) -> bool:
        """Whether it came within so many seconds."""
        await asyncio.wait({self._come}, timeout=seconds)
        return self._come.done()

    def _wait(self, fd: int) -> None:
        # An error is found again, and told, by who takes the lock then.
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        os.close(fd)
        # The loop may be closed by now.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._come.set_result, None)
