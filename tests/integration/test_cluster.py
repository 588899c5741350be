# SPDX-License-Identifier: GPL-3.0-or-later
"""Three brokers and streams on all of them: what a cluster does that a single server does not."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipper_runtime.errors import ApiError
from shipper_runtime.jetstream import STREAM_FULL, JetStream
from tests.integration.cluster import NatsCluster
from tests.integration.durable import STREAM, SUBJECT, DurableFleet
from tests.support import Shipper, run_shipper, wait_for

# The oldest that durable mode works with; the newest takes a server for a stream that is away.
OLD = "2.10.26"


@contextlib.contextmanager
def replicated(folder: Path, version: str = "") -> Iterator[DurableFleet]:
    """A fleet whose stream of 1 MiB is on three servers; it is made while they have not yet elected a leader."""
    with NatsCluster(folder, version) as cluster:
        fleet = DurableFleet(folder, "1MiB", cluster=cluster)
        try:
            yield fleet
        finally:
            fleet.close()


async def send_twice(js: JetStream) -> list[str]:
    """What the server says to something that does not fit, and to the same once more."""
    answers = []
    for _turn in range(2):
        try:
            ack = await js.publish(SUBJECT, b"x" * 700_000, {"Nats-Msg-Id": "twice"}, STREAM)
            answers.append("%s %d" % ("duplicate" if ack.duplicate else "stored", ack.sequence))
        except ApiError as error:
            assert error.err_code == STREAM_FULL
            answers.append("refused")
    return answers


async def all_current(js: JetStream) -> bool:
    cluster = (await js.stream_info(STREAM))["cluster"]
    return bool(cluster.get("leader")) and all(peer["current"] for peer in cluster["replicas"])


@pytest.mark.parametrize("version", [OLD, ""])
def test_a_full_stream_on_three_servers_gets_what_it_refused(tmp_path: Path, version: str) -> None:
    """2.10 calls a block that it has refused a duplicate when it comes again, with sequence 0, and has not stored it:
    the block must go again with another id, or it is lost."""
    with replicated(tmp_path, version) as fleet, fleet.producer() as producer:
        written = fleet.write(100_000)
        producer.wait_for_log("Cannot publish to %s: the stream is full" % SUBJECT)
        if version:
            assert fleet.ask(send_twice) == ["refused", "duplicate 0"], "the trap that this test is about is gone"
        with fleet.consumer() as consumer:
            fleet.expect(written)
            assert consumer.stop() == 0
        assert producer.stop() == 0


def test_a_server_that_is_killed_costs_nothing(tmp_path: Path) -> None:
    with replicated(tmp_path) as fleet, fleet.producer() as producer, fleet.consumer() as consumer:
        written = fleet.write(1000)
        fleet.expect(written)
        assert fleet.cluster is not None
        for server in fleet.cluster.servers:
            server.kill()
            written += fleet.write(30_000)
            fleet.expect(written, seconds=60)
            server.start()
            wait_for(lambda: fleet.ask(all_current), 60, "the stream is not on all servers again")
        assert (producer.stop(), consumer.stop()) == (0, 0)


def test_a_stream_waits_for_a_server_that_comes_later_and_not_for_ever(tmp_path: Path) -> None:
    """As in a playbook's first run, where a cluster has a leader that does not know all servers yet."""
    with NatsCluster(tmp_path, OLD) as cluster:
        env = {"NATS_URL": cluster.url, "SHIPPER_STREAM": "logs", "SHIPPER_STREAM_MAX_BYTES": "1MiB"}
        led = run_shipper("streams", env={**env, "SHIPPER_STREAM": "other", "SHIPPER_SUBJECT": "other"})
        assert led.returncode == 0, led.stderr
        cluster.servers[2].kill(signal.SIGTERM)
        env.update(SHIPPER_SUBJECT="shipper", SHIPPER_STREAM_REPLICAS="3")
        refused = run_shipper("streams", env=env)
        assert refused.returncode == 2
        assert "SHIPPER_STREAM_REPLICAS=3: stream logs-p0 is not created: no suitable peers" in refused.stderr
        with Shipper("streams", env, tmp_path / "streams.log") as asking:
            time.sleep(2)
            cluster.servers[2].start()
            assert asking.process is not None
            assert asking.process.wait(30) == 0, asking.log
        assert "created logs-p0" in asking.log
