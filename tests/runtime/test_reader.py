# SPDX-License-Identifier: GPL-3.0-or-later
"""What a reader tells of itself, without a broker."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from shipper_runtime.ledger import Ledger
from shipper_runtime.reader import STUCK_SECONDS, Reader, Shared
from shipper_runtime.settings import consumer_settings
from shipper_runtime.tally import Tally

_NOTHING: Any = None


class NoBroker:
    """Never has a connection."""

    async def link(self) -> None:
        await asyncio.Event().wait()


def test_a_reader_that_waits_for_a_connection_is_not_stuck_and_one_that_does_not_come_round_is(tmp_path: Path) -> None:
    env = {"NATS_URL": "localhost", "SHIPPER_SUBJECT": "shipper", "SHIPPER_STREAM": "logs", "SHIPPER_OUTPUT": "log-%Y"}
    settings = consumer_settings({**env, "SHIPPER_DIRECTORY": str(tmp_path)}, "a1")
    broker: Any = NoBroker()

    async def scenario(ledger: Ledger) -> None:
        stopping = asyncio.Event()
        shared = Shared(settings, broker, _NOTHING, ledger, Tally(), _NOTHING, stopping, 16, 1024, asyncio.Semaphore(1))
        reader = Reader(shared, 0)
        running = asyncio.create_task(reader.run())
        await asyncio.sleep(0.05)
        assert not reader.stuck(1e12)
        stopping.set()
        await running
        assert reader.turned_at is not None
        assert not reader.stuck(reader.turned_at + STUCK_SECONDS - 1)
        assert reader.stuck(reader.turned_at + STUCK_SECONDS + 1)

    with contextlib.closing(Ledger(str(tmp_path))) as ledger:
        asyncio.run(scenario(ledger))
