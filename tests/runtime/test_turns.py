# SPDX-License-Identifier: GPL-3.0-or-later
"""Who waits for a file's lock gets it in turn, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from shipper_runtime.turns import Turn
from tests.support import wait_for


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        yield fd
    finally:
        os.close(fd)


def can_lock(path: Path) -> bool:
    with opened(path) as fd, contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def waiting() -> int:
    return sum(thread.name == "turn" for thread in threading.enumerate())


def test_a_turn_that_is_long_in_coming_is_one_and_the_lock_is_then_the_open_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with opened(path) as holder, opened(path) as fd:
        fcntl.flock(holder, fcntl.LOCK_EX)

        async def wait() -> None:
            turn = Turn(fd)
            assert not await turn.within(0.1)
            assert not await turn.within(0.1)
            assert waiting() == 1
            fcntl.flock(holder, fcntl.LOCK_UN)
            assert await turn.within(5.0)

        asyncio.run(wait())
        wait_for(lambda: not waiting(), what="a thread stays")
        assert not can_lock(path)
        fcntl.flock(fd, fcntl.LOCK_UN)
        assert can_lock(path)


def test_a_wait_that_was_given_up_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with opened(path) as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)

        async def wait() -> None:
            with opened(path) as fd:
                assert not await Turn(fd).within(0.1)

        before = time.monotonic()
        asyncio.run(wait())
        assert time.monotonic() - before < 5.0
        assert waiting() == 1
    wait_for(lambda: not waiting(), what="a thread stays")
    assert can_lock(path)
