# SPDX-License-Identifier: GPL-3.0-or-later
"""A durable fleet for tests: a real server with JetStream, one log file, one or two groups of archive hosts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, Callable, TypeVar

from shipper_runtime.broker import connected
from shipper_runtime.errors import ApiError
from shipper_runtime.jetstream import JetStream
from shipper_runtime.permissions import ADMIN_INBOX
from shipper_runtime.settings import broker_settings
from tests.integration.cluster import NatsCluster
from tests.support import NatsServer, Shipper, archived, run_shipper, wait_for

HOST = "web1.example.net"
STREAM = "logs-p0"
SUBJECT = "shipper.p0." + HOST
# Of the messages that a test sends in the producer's place.
LIFE = "0123456789abcdef" * 2

Result = TypeVar("Result")


class DurableFleet:
    """One partition. Nothing runs but the server until it is started. With a cluster, its server is the
    first of that, and the stream is on all of them. compress is for producers and consumers."""

    def __init__(
        self,
        folder: Path,
        max_bytes: str = "64MiB",
        sync: str = "always",
        version: str = "",
        cluster: NatsCluster | None = None,
        compress: str = "",
    ) -> None:
        self.folder = folder
        self.log = folder / "app.log"
        self.store = folder / "js"
        if cluster is None:
            self.server = NatsServer(
                folder / "nats",
                'jetstream { store_dir: "%s", sync_interval: %s, max_file_store: 2GB }' % (self.store, sync),
                version=version,
            ).start()
        else:
            self.server = cluster.servers[0]
        self.cluster = cluster
        self.max_bytes = max_bytes
        self.compress = compress
        self.programs: list[Shipper] = []
        self.make_streams()

    @property
    def url(self) -> str:
        return (self.cluster or self.server).url

    @property
    def common(self) -> dict[str, str]:
        return {"NATS_URL": self.url, "SHIPPER_SUBJECT": "shipper", "SHIPPER_STREAM": "logs"}

    def make_streams(self) -> None:
        replicas = "1" if self.cluster is None else "%d" % len(self.cluster.servers)
        limits = {"SHIPPER_STREAM_MAX_BYTES": self.max_bytes, "SHIPPER_STREAM_REPLICAS": replicas}
        made = run_shipper("streams", env={**self.common, **limits})
        assert made.returncode == 0, made.stderr

    def producer(self, *arguments: str, **more: str) -> Shipper:
        env = {
            **self.common,
            "HOSTNAME": HOST,
            "SHIPPER_FILE": str(self.log),
            "SHIPPER_STATE": str(self.folder / "state"),
            "SHIPPER_COMPRESS": self.compress,
            **more,
        }
        return self._program("producer", env, "producer.log", arguments)

    def consumer(self, *arguments: str, group: str = "archive", **more: str) -> Shipper:
        env = {
            **self.common,
            "SHIPPER_GROUP": group,
            "SHIPPER_DIRECTORY": str(self.directory(group)),
            "SHIPPER_OUTPUT": "{source}-%Y",
            "SHIPPER_ROTATE": "52w",
            "SHIPPER_COMPRESS": self.compress,
            **more,
        }
        return self._program("consumer", env, "%s.log" % group, arguments)

    def _program(self, command: str, env: dict[str, str], log: str, arguments: tuple[str, ...]) -> Shipper:
        program = Shipper(command, env, self.folder / log)
        program._arguments += arguments
        self.programs.append(program)
        return program

    def directory(self, group: str = "archive") -> Path:
        return self.folder / group

    def archive(self, group: str = "archive") -> bytes:
        folder = self.directory(group) / HOST
        return archived(self.directory(group), HOST) if folder.is_dir() else b""

    def expect(self, written: bytes, group: str = "archive", seconds: float = 30.0) -> None:
        """The archive comes to hold exactly this."""
        deadline = time.monotonic() + seconds
        while self.archive(group) != written and time.monotonic() < deadline:
            time.sleep(0.05)
        got = self.archive(group)
        same = next((n for n, (a, b) in enumerate(zip(got, written)) if a != b), min(len(got), len(written)))
        logs = "\n".join(program.log[-3000:] for program in self.programs)
        assert got == written, "%d of %d bytes, the same up to %d: %r instead of %r\n%s" % (
            len(got), len(written), same, got[same : same + 80], written[same : same + 80], logs,
        )  # fmt: skip

    def ask(self, question: Callable[[JetStream], Awaitable[Result]]) -> Result:
        """Ask the broker, as an admin would."""

        async def asking() -> Result:
            settings = broker_settings({"NATS_URL": self.url})
            async with connected(settings, "test", ADMIN_INBOX) as link:
                return await question(JetStream(link))

        return asyncio.run(asking())

    def publish(
        self, *payloads: bytes, subject: str = SUBJECT, headers: dict[str, str] | None = None, stream: str = STREAM
    ) -> None:
        """Store plain messages, as an fshipper does, but for the acknowledgement that is waited for here."""

        async def publishing(js: JetStream) -> None:
            for payload in payloads:
                await js.publish(subject, payload, headers or {}, stream)

        self.ask(publishing)

    def state(self) -> dict[str, Any]:
        info = self.ask(lambda js: js.stream_info(STREAM))
        return dict(info["state"])

    def settle(self, group: str = "archive") -> None:
        """Wait until the group has committed all that the stream has, and the broker knows."""

        def settled() -> bool:
            with contextlib.suppress(ApiError):
                info = self.ask(lambda js: js.consumer_info(STREAM, group))
                return not info["num_pending"] and not info["num_ack_pending"]
            return False

        wait_for(settled, 20, "%s has not committed all" % group)

    def write(self, lines: int, tag: str = "") -> bytes:
        """Append so many lines to the log; their bytes."""
        data = b"".join(b"%s line %d of %d\n" % (tag.encode(), number, lines) for number in range(lines))
        with self.log.open("ab") as file:
            file.write(data)
        return data

    def close(self) -> None:
        for program in self.programs:
            program.__exit__(None, None, None)
        self.server.__exit__(None, None, None)


@contextlib.contextmanager
def fleet_in(folder: Path, **more: str) -> Iterator[DurableFleet]:
    made = DurableFleet(folder, **more)
    try:
        yield made
    finally:
        made.close()


def reading(consumer: Shipper) -> Shipper:
    """The same, once it reads its partition."""
    consumer.wait_for_log("Waiting for messages on subject shipper.p0.>")
    return consumer


def files(fleet: DurableFleet, group: str) -> dict[str, bytes]:
    """What a group's archive has of the host, as it is stored, by the names of the files."""
    root = fleet.directory(group) / HOST
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
