# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a stream without being a group of it: holds nothing back, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from .errors import BrokerError
from .jetstream import JetStream
from .pull import Pull

# The server removes the consumer after so long without a request, if the program could not do it itself.
_INACTIVE = 60.0
# Who is told to stop does not wait for a server that is silent.
_LAST_WORD = 1.0


@dataclass(frozen=True)
class Onlooker:
    """pull gives the messages, of which there were so many at the start."""

    pull: Pull
    at_start: int
    _api: JetStream
    _stream: str
    _name: str

    async def left(self) -> int:
        """How many messages the server has not sent yet. Raises BrokerError's kinds."""
        return int((await self._api.consumer_info(self._stream, self._name))["num_pending"])


@contextlib.asynccontextmanager
async def onlooker(
    api: JetStream, stream: str, subject: str, begin: dict[str, Any], **more: Any
) -> AsyncIterator[Onlooker]:
    """Look at what a stream has of a subject, which may be a pattern.

    begin is the deliver policy and what belongs to it, more any other member of a consumer's configuration. Raises
    BrokerError's kinds.
    """
    name = "look-" + secrets.token_hex(8)
    config = {
        "name": name,
        "filter_subject": subject,
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(_INACTIVE * 1e9),
        **begin,
        **more,
    }
    info = await api.create_consumer(stream, config)
    pull = Pull(api.link, stream, name)
    try:
        await pull.start()
        yield Onlooker(pull, int(info["num_pending"]), api, stream, name)
    finally:
        await pull.close()
        with contextlib.suppress(BrokerError):
            await JetStream(api.link, _LAST_WORD).delete_consumer(stream, name)
