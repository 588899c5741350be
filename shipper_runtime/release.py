# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets other archive hosts have partitions that this archive has read and nobody on this host reads any more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import replace

from .addresses import Addresses
from .errors import ApiError, BrokerError, ConnectionLost, OutOfStep
from .jetstream import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, JetStream
from .ledger import Commit, Position
from .ownership import OWNER, released
from .reader import Shared
from .service import Rarely
from .settings import partition_stream
from .vault import Vault

logger = logging.getLogger(__name__)

# How long nobody on this host has read a partition before it is released: its worker may only be starting again.
RELEASE_AFTER = 20.0
_INTERVAL = 2.0


async def release_unread(shared: Shared) -> None:
    """Look for such partitions, for ever."""
    ours = {partition_stream(shared.settings.stream or "", number) for number in shared.settings.partitions}
    unread_since: dict[str, float] = {}
    complain = Rarely(logger.warning)
    while True:
        link = await shared.broker.link()
        try:
            for stream in shared.ledger.streams():
                if stream not in ours:
                    await _release_if_unread(shared, JetStream(link), stream, unread_since)
        except (BrokerError, OSError) as error:
            if not isinstance(error, ConnectionLost):
                complain("Cannot release what this host does not read any more: %s; trying again", error)
        await asyncio.sleep(_INTERVAL)


async def _release_if_unread(shared: Shared, js: JetStream, stream: str, unread_since: dict[str, float]) -> None:
    lock = shared.ledger.lock(stream)
    if lock is None:
        unread_since.pop(stream, None)
        return
    try:
        now = time.monotonic()
        if now - unread_since.setdefault(stream, now) >= RELEASE_AFTER:
            await _release(shared, js, stream)
    finally:
        os.close(lock)


async def _release(shared: Shared, js: JetStream, stream: str) -> None:
    position = shared.ledger.position(stream)
    if position is None:
        return
    try:
        durable = await js.consumer_info(stream, shared.settings.group)
    except ApiError as error:
        if error.err_code not in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
            raise
    else:
        if (durable["config"].get("metadata") or {}).get(OWNER) == shared.ledger.id:
            _leave_nothing(shared, stream, position)
            await js.create_consumer(stream, released(shared.ledger.id, position, durable["config"]), "update")
    shared.ledger.release(stream)
    logger.info("Released %s: this host does not read it any more", stream)


def _leave_nothing(shared: Shared, stream: str, position: Position) -> None:
    """Cut off what is not committed, for the next owner writes it; and write what is kept aside of lines that are not
    complete, for that one does not have it. Raises OSError."""

    def unwritten(host: str, path: str, size: int, error: OSError) -> None:
        logger.warning("Lost %d bytes of host %s, for %s: %s", size, host, path, error.strerror)

    vault = Vault(shared.root, shared.ledger, stream, unwritten, shared.descriptors, shared.settings.compress)
    with contextlib.closing(vault):
        vault.cut_back()
        asides = shared.ledger.asides(stream)
        if not asides:
            return
        addresses = Addresses(shared.settings.prefix, shared.settings.output)
        addresses.at(position.latest)
        for row in asides:
            vault.append(row.host, addresses.name(None), addresses.period, position.latest, row.aside + b"\n")
        vault.flush()
        for left in vault.left():
            raise OutOfStep("%s is being written by another partition" % left.shown)
        vault.sync()
        lives = [replace(row, aside=b"") for row in asides]
        shared.ledger.commit(stream, Commit(position, vault.rows(), lives))
        vault.settle()
