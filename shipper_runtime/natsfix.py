# SPDX-License-Identifier: GPL-3.0-or-later
"""What nats-py 2.16 gets wrong on a connection that others can reach, each with its cure.

Only this module touches what nats-py does not document; tests/integration/test_broker.py shows each cure at work on
the nats-py that is installed.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

import nats.aio.client
import nats.errors
from nats.aio.client import Client
from nats.protocol import command, parser

# The protocol separates by space and tab, but \s also matches \v and \f, which a subject may hold: such a message was
# delivered as another host's, or broke the parser.
parser.MSG_RE = re.compile(rb"\AMSG[ \t]+([^ \t\r\n]+)[ \t]+([^ \t\r\n]+)[ \t]+(([^ \t\r\n]+)[ \t]+)?(\d+)\r\n")
parser.HMSG_RE = re.compile(
    rb"\AHMSG[ \t]+([^ \t\r\n]+)[ \t]+([^ \t\r\n]+)[ \t]+(([^ \t\r\n]+)[ \t]+)?(\d+)[ \t]+(\d+)\r\n"
)

# nats-py reads 32 KiB at a time, which costs a consumer of blocks of 512 KiB a quarter more.
nats.aio.client.DEFAULT_BUFFER_SIZE = 256 * 1024


def _hpub(subject: Any, reply: Any, hdr: Any, payload: Any) -> bytes:
    sizes = "HPUB %s %s %d %d\r\n" % (subject, reply, len(hdr), len(hdr) + len(payload))
    return b"".join((sizes.encode(), hdr, payload, b"\r\n"))


# nats-py adds the pieces one by one, and so copies a block of 512 KiB twice: half of what a producer costs.
command.hpub_cmd = _hpub

UNREADABLE = {"Shipper-Unreadable": "1"}


class FixedClient(Client):
    """A client that keeps credentials to itself until the connection is encrypted, where require_tls says so, and
    that no message can stop."""

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

    async def _process_op_err(self, e: Exception) -> None:
        # nats-py tries to send what is left on the connection that just broke, fails at that, and then neither ends its
        # tasks nor tells anybody.
        self._pending, self._pending_data_size = [], 0
        await super()._process_op_err(e)

    async def _process_headers(self, headers: Any) -> Any:
        # A header that cannot be parsed would end the read loop while the client goes on to call itself connected.
        try:
            return await super()._process_headers(headers)
        except Exception:
            return dict(UNREADABLE)

    def _build_message(self, sid: int, subject: Any, reply: Any, data: Any, headers: Any) -> Any:
        # The same for a subject that is not UTF-8: it is not a host's, and the escaped one is not either.
        try:
            return super()._build_message(sid, subject, reply, data, headers)
        except UnicodeDecodeError:
            readable, answer = (part.decode("utf-8", "backslashreplace").encode() for part in (subject, reply))
            return super()._build_message(sid, readable, answer, data, headers)


def abort(client: Client) -> None:
    """Drop the connection now: close() waits for a stalled server to take what is queued."""
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if writer is not None:
        with contextlib.suppress(Exception):
            writer.transport.abort()
