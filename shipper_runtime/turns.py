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


async def locked(fd: int, seconds: float) -> bool:
    """Whether the lock (flock) of an open file was got within so many seconds. The kernel gives it to who asked first,
    so that nobody starves; who only tries again and again may never come at the right moment."""
    turn = _Turn(fd)
    try:
        await asyncio.wait_for(turn.come, seconds)
    except asyncio.TimeoutError:
        return False
    finally:
        turn.give_up()
    return True


class _Turn:
    """A thread that may have to be left waiting: a daemon, so that a stop need not wait for whoever has the lock."""

    def __init__(self, fd: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.come: asyncio.Future[None] = self._loop.create_future()
        # The same open file, so the lock is fd's, and goes when both are closed.
        self._fd = os.dup(fd)
        self._given_up = False
        if threading.active_count() < _THREADS_MOST:
            threading.Thread(target=self._wait, name="turn", daemon=True).start()
        else:
            os.close(self._fd)

    def give_up(self) -> None:
        self._given_up = True

    def _wait(self) -> None:
        # An error is found again, and told, by who takes the lock then.
        with contextlib.suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.close(self._fd)
        # The loop may be closed by now.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if not self._given_up:
            self.come.set_result(None)
