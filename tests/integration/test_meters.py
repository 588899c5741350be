# SPDX-License-Identifier: GPL-3.0-or-later
"""What a producer and a consumer show at SHIPPER_METRICS while they work."""

from __future__ import annotations

import re
import socket
import urllib.request
from pathlib import Path

from tests.integration.durable import DurableFleet
from tests.support import ROOT, NatsServer, Shipper, run_shipper, wait_for

DOCUMENTED = set(re.findall(r"\| `(shipper_[a-z_]+)` \|", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % port, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _space, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def names(metrics: dict[str, float]) -> set[str]:
    return {name.partition("{")[0] for name in metrics}


def test_both_sides_count_what_they_ship_and_what_is_left(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    fleet = DurableFleet(tmp_path)
    try:
        producer = fleet.producer(SHIPPER_METRICS="127.0.0.1:%d" % ports[0])
        consumer = fleet.consumer(SHIPPER_METRICS="127.0.0.1:%d" % ports[1])
        with producer, consumer:
            written = fleet.write(1000)
            fleet.expect(written)
            fleet.settle()
            sent, got = scrape(ports[0]), scrape(ports[1])
            assert sent["shipper_published_bytes_total"] == len(written)
            assert sent["shipper_published_messages_total"] >= 1
            assert sent["shipper_lag_bytes"] == sent["shipper_lag_seconds"] == 0
            assert got['shipper_committed_bytes_total{partition="0"}'] == len(written)
            assert got['shipper_lag_messages{partition="0"}'] == got['shipper_lag_seconds{partition="0"}'] == 0
            assert got['shipper_last_commit_timestamp_seconds{partition="0"}'] > 1.7e9
            assert names(sent) | names(got) <= DOCUMENTED
            fleet.server.kill()
            waiting = fleet.write(500, "more")
            wait_for(lambda: scrape(ports[0])["shipper_lag_bytes"] == len(waiting), what="the lag")
            wait_for(lambda: scrape(ports[0])["shipper_lag_seconds"] > 0, what="the lag's age")
            assert scrape(ports[0])["shipper_reconnects_total"] >= 1
            fleet.server.start()
            fleet.expect(written + waiting)
    finally:
        fleet.close()


def test_a_consumer_without_streams_counts_what_it_rejects(tmp_path: Path) -> None:
    port = free_port()
    with NatsServer(tmp_path / "nats") as server:
        env = {
            "NATS_URL": server.url,
            "SHIPPER_SUBJECT": "shipper",
            "SHIPPER_DIRECTORY": str(tmp_path / "archive"),
            "SHIPPER_OUTPUT": "log-%Y%m%d",
            "SHIPPER_METRICS": "127.0.0.1:%d" % port,
        }
        with Shipper("consumer", env, tmp_path / "consumer.log") as consumer:
            consumer.wait_for_log("Waiting for messages")
            with socket.create_connection(("127.0.0.1", server.port)) as plain:
                plain.sendall(b"CONNECT {}\r\nPUB shipper.p0.a/b 1\r\nx\r\nPING\r\n")
                wait_for(lambda: scrape(port).get('shipper_rejected_messages_total{reason="bad host"}') == 1)
            # A second process cannot have the same port, and says so in one line.
            second = run_shipper("consumer", env={**env, "SHIPPER_DIRECTORY": str(tmp_path / "other")})
            assert second.returncode == 2
            assert "SHIPPER_METRICS=127.0.0.1:%d" % port in second.stderr.splitlines()[-1]
            assert consumer.stop() == 0
