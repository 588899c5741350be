# SPDX-License-Identifier: GPL-3.0-or-later
"""A producer with a rate: not faster, and fair to all of its files."""

from __future__ import annotations

import time
from pathlib import Path

from tests.integration.durable import DurableFleet
from tests.support import wait_for


def test_a_rate_holds_a_backlog_back_and_not_what_is_written_beside_it(tmp_path: Path) -> None:
    fleet = DurableFleet(tmp_path)
    try:
        other = tmp_path / "other.log"
        backlog = fleet.write(60_000)
        assert len(backlog) > 1_000_000
        files = "%s:%s" % (fleet.log, other)
        with fleet.consumer() as consumer, fleet.producer(SHIPPER_FILE=files, SHIPPER_RATE="250kB") as producer:
            producer.wait_for_log("Connected to")
            began = time.monotonic()
            other.write_bytes(b"one line\n")
            wait_for(lambda: b"one line\n" in fleet.archive(), 5, "the other file's line waits behind the backlog")
            assert len(fleet.archive()) < len(backlog) / 2
            wait_for(lambda: len(fleet.archive()) == len(backlog) + 9, 30)
            assert time.monotonic() - began > 0.8 * len(backlog) / 250_000
            assert (producer.stop(), consumer.stop()) == (0, 0)
    finally:
        fleet.close()
