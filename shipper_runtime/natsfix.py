# SPDX-License-Identifier: GPL-3.0-or-later
"""The handshake, which is nats-py's: TCP, TLS, who we are. With two cures, and the end of what nats-py is used for.

Only this module touches what nats-py 2.16 does not document; tests/integration/test_broker.py shows each cure at work
on the nats-py that is installed.
"""

from __future__ import annotations

import contextlib
from typing import Any

import nats.aio.client
import nats.errors
from nats.aio.client import Client

from . import __version__
from .connection import Connection

# Shown in the server's monitoring: which of our releases is connected tells more than which of nats-py's.
nats.aio.client.__version__ = __version__


class FixedClient(Client):
    """A client that keeps credentials to itself until the connection is encrypted, where require_tls says so. It only
    connects: hand_over() then."""

    def __init__(self, *, require_tls: bool) -> None:
        super().__init__()
        self._require_tls = require_tls

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and self._require_tls and info.get("tls_available"):
            # nats-py encrypts only where the server insists.
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    def _connect_command(self) -> bytes:
        # nats-py sends the password in clear where a server, or somebody in between, does not ask for TLS.
        writer = getattr(self._transport, "_io_writer", None)
        if self._require_tls and (writer is None or writer.get_extra_info("ssl_object") is None):
            raise nats.errors.Error("nats: the server does not offer TLS, so nothing was sent to it")
        return super()._connect_command()

    # The tasks that nats-py starts when it is connected: what they would do is connection.py's.

    async def _read_loop(self) -> None:
        pass

    async def _flusher(self) -> None:
        pass

    async def _ping_interval(self) -> None:
        pass


def hand_over(client: Client, connection: Connection) -> None:
    """The connection's bytes belong to connection now. client has to be kept as long as it: what nats-py writes with
    closes the transport when nobody holds it any more."""
    transport: Any = client._transport
    reader = transport._io_reader
    connection.begin(transport._io_writer.transport, bytes(reader._buffer), reader._eof)


def abort(client: Client) -> None:
    """Drop the connection now."""
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if writer is not None:
        with contextlib.suppress(Exception):
            writer.transport.abort()
