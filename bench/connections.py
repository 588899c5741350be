# SPDX-License-Identifier: GPL-3.0-or-later
"""5,000 producers' connections at once, and the broker restarted under them: when all are back, and in what a rush.

The connections are made by the code that producers use, many in one process, each as a host of its own that has one
block in flight and sends it until it is acknowledged. That process is busy for as long as they come back: how they
spread is seen from when each tries to connect.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import signal
import tempfile
import time
from pathlib import Path

import chart
import results
from harness import bundle, durable_server, kept, make_streams

from shipper_runtime.broker import Broker, Link
from shipper_runtime.delivery import StreamDelivery
from shipper_runtime.errors import BrokerError
from shipper_runtime.permissions import inbox_prefix
from shipper_runtime.servers import Server
from shipper_runtime.settings import BrokerSettings, broker_settings
from shipper_runtime.wire import Span, encode
from tests.support import NatsServer

BACK_WITHIN = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=5000, help="how many; %(default)s without")
    parser.add_argument("--away", type=float, default=5.0, help="how long the broker is away; %(default)s s without")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as name:
        folder = Path(name)
        program = bundle(folder)
        with durable_server(folder) as server:
            common = {"NATS_URL": server.url, "SHIPPER_SUBJECT": "shipper", "SHIPPER_STREAM": "logs"}
            make_streams(program, common, "1GiB")
            return asyncio.run(measure(server, options.connections, options.away))


async def measure(server: NatsServer, count: int, away: float) -> int:
    hosts = [Host(server.url, number) for number in range(count)]
    started = time.monotonic()
    for host in hosts:
        host.start()
    await everybody(hosts, 1)
    first = time.monotonic() - started
    print("%d connections, each with a block that it wants acknowledged" % count)
    print("  first       all acknowledged after %.1f s" % first, flush=True)
    server.kill(signal.SIGKILL)
    for host in hosts:
        host.want(2)
    await asyncio.sleep(away)
    server.start()
    started = time.monotonic()
    await everybody(hosts, 2)
    back = sorted(host.at - started for host in hosts)
    tries = [each - started for host in hosts for each in host.tries if each >= started]
    rush = max(sum(1 for each in tries if at <= each < at + 1) for at in range(int(max(tries)) + 1))
    print(
        "  killed      for %.0f s; half were back %.1f s after its start, all %.1f s"
        % (away, back[count // 2], back[-1])
    )
    print("  rush        %d at most tried to connect in one second" % rush)
    print("  promised    all within %.0f s: %s" % (BACK_WITHIN, kept(back[-1] <= BACK_WITHIN)))
    for host in hosts:
        host.stop()
    document = {
        "connections": count,
        "all_connected_seconds": round(first, 1),
        "half_back_seconds": round(back[count // 2], 1),
        "all_back_seconds": round(back[-1], 1),
        "most_tries_in_one_second": rush,
    }
    rows = [
        ("all connected, at first", first, "ours"),
        ("half are back", back[count // 2], "ours"),
        ("all are back", back[-1], "ours"),
        ("promised for all", BACK_WITHIN, "limit"),
    ]
    note = "s after the broker's start, logarithmic, %d connections, at most %d tries in one second" % (count, rush)
    results.save("connections", document, chart.bars("A killed broker's producers come back", note, "s", rows))
    return 0 if back[-1] <= BACK_WITHIN else 1


async def everybody(hosts: list[Host], number: int) -> None:
    """Until each host's block of that number is acknowledged."""
    deadline = time.monotonic() + 300
    while any(host.acknowledged < number for host in hosts):
        if time.monotonic() > deadline:
            late = sum(1 for host in hosts if host.acknowledged < number)
            raise SystemExit("%d of %d are not back" % (late, len(hosts)))
        await asyncio.sleep(0.2)


class _Tried(Broker):
    def __init__(self, settings: BrokerSettings, name: str, inbox: str) -> None:
        super().__init__(settings, name, inbox)
        self.tries: list[float] = []

    async def _connect(self, server: Server) -> Link | None:
        self.tries.append(time.monotonic())
        return await super()._connect(server)


class Host:
    """One host's connection, and one block after the other."""

    def __init__(self, url: str, number: int) -> None:
        self.name = "h%05d.example.net" % number
        self._life = "%032x" % number
        self.acknowledged = 0
        self.at = 0.0
        self._wanted = 1
        self._wanting = asyncio.Event()
        settings = broker_settings({"NATS_URL": url})
        self._broker = _Tried(settings, "shipper producer %s" % self.name, inbox_prefix("producer", self.name))
        self._delivery = StreamDelivery("logs-p0")
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def tries(self) -> list[float]:
        """When it tried to connect."""
        return self._broker.tries

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._broker.run()), asyncio.create_task(self._ship())]

    def want(self, number: int) -> None:
        """Have the block of that number shipped too."""
        self._wanted = number
        self._wanting.set()

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _ship(self) -> None:
        while True:
            while self.acknowledged < self._wanted:
                await self._ship_one()
            self._wanting.clear()
            await self._wanting.wait()

    async def _ship_one(self) -> None:
        link = await self._broker.link()
        begin = self.acknowledged * 100
        headers = encode(self.name, Span(b"/var/log/app.log", self._life, begin, begin + 100, 0, "0" * 32))
        try:
            await self._delivery.deliver(link, "shipper.p0." + self.name, b"x" * 99, headers)
        except BrokerError:
            await asyncio.sleep(0.2)
            return
        self.acknowledged += 1
        self.at = time.monotonic()


if __name__ == "__main__":
    raise SystemExit(main())
