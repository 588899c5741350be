# SPDX-License-Identifier: GPL-3.0-or-later
"""Three real servers with JetStream that are one cluster, for tests."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from types import TracebackType

from tests.support import NatsServer

_CONFIG = """
server_name: n%(number)d
jetstream { store_dir: "%(store)s", max_file_store: 1GB }
cluster { name: test, listen: "127.0.0.1:%(port)d", routes: [%(routes)s] }
"""


class NatsCluster:
    """A context manager. url names all three servers, as NATS_URL does."""

    def __init__(self, folder: Path, version: str = "") -> None:
        ports = _free_ports(3)
        routes = ", ".join('"nats://127.0.0.1:%d"' % port for port in ports)
        self.servers = [
            NatsServer(
                folder / ("n%d" % number),
                _CONFIG % {"number": number, "store": folder / ("js%d" % number), "port": port, "routes": routes},
                version=version,
            )
            for number, port in enumerate(ports)
        ]

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers)

    def __enter__(self) -> NatsCluster:
        with contextlib.ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.servers:
            server.__exit__(kind, value, trace)


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago: a cluster's must be known before its servers start."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _turn in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
