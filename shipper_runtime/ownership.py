# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a partition is, and where its owner begins to read. Pure.

Between archive hosts the durable's metadata on the broker says it: docs/durable.md. The ledger's id is the owner, for
the ledger knows what is committed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import BrokerError
from .ledger import Position
from .trim import floor_of

OWNER, OWNER_HOST, OWNER_FOLDER = "shipper-ledger", "shipper-host", "shipper-directory"
RELEASED, RELEASED_BY = "shipper-position", "shipper-released-by"


class NotOurs(BrokerError):
    """The partition is another archive host's."""


@dataclass(frozen=True)
class Archive:
    """Who asks: the ledger's id, the host's name, and the archive's root."""

    ledger: str
    host: str
    directory: str

    @property
    def metadata(self) -> dict[str, str]:
        """What a durable of this archive says."""
        return {OWNER: self.ledger, OWNER_HOST: self.host, OWNER_FOLDER: self.directory}


@dataclass(frozen=True)
class Start:
    """Where to begin. told: the ledger has to be told so; new: nothing of the stream was ever committed by this group,
    as far as anybody knows; why: what an operator should know of it."""

    position: Position
    told: bool = True
    new: bool = False
    why: str = ""


def start(
    me: Archive, durable: Mapping[str, Any] | None, known: Position | None, created: str, take_over: bool
) -> Start:
    """Where to begin in a stream, by the group's durable and what the own ledger knows. Raises NotOurs."""
    metadata: Mapping[str, str] = {} if durable is None else durable["config"].get("metadata") or {}
    owner = metadata.get(OWNER)
    if durable is None or owner == me.ledger:
        return Start(Position(created), new=True) if known is None else Start(known, told=False)
    if owner is None:
        if known is not None and metadata.get(RELEASED_BY) == me.ledger:
            return Start(known)
        return Start(_released(metadata.get(RELEASED, "")) or Position(created, floor_of(durable)))
    floor = Position(created, floor_of(durable))
    # The host itself had it, with another disk or another ledger.
    if known is None and (metadata.get(OWNER_HOST), metadata.get(OWNER_FOLDER)) == (me.host, me.directory):
        return Start(floor, why="the ledger is lost: going on behind %d, which was acknowledged" % floor.sequence)
    host = metadata.get(OWNER_HOST) or "another archive host"
    if take_over:
        return Start(floor, why="taken over from %s, behind %d" % (host, floor.sequence))
    raise NotOurs(host)


def is_old_copy(
    me: Archive, durable: Mapping[str, Any] | None, known: Position | None, info: Mapping[str, Any]
) -> bool:
    """Whether the ledger is an older copy of itself: more of the stream was acknowledged in its name than it knows."""
    if durable is None or (durable["config"].get("metadata") or {}).get(OWNER) != me.ledger:
        return False
    floor = floor_of(durable)
    if floor < max(1, int(info["state"]["first_seq"])):
        # What an operator purges counts as acknowledged.
        return False
    if known is None:
        return True
    # Where numbers are used a second time the durable may still be of the first.
    return known.created == info["created"] and known.sequence < floor and not known.replay_until


def released(ledger: str, position: Position, config: Mapping[str, Any]) -> dict[str, Any]:
    """A durable's configuration, changed so that the next archive host may take it from this ledger's position on."""
    metadata = {key: value for key, value in (config.get("metadata") or {}).items() if key != OWNER}
    metadata[RELEASED_BY] = ledger
    metadata[RELEASED] = "%d:%d:%s" % (position.sequence, position.stamp, position.created)
    return {**config, "metadata": metadata}


def _released(text: str) -> Position | None:
    sequence, _colon, rest = text.partition(":")
    stamp, _colon, created = rest.partition(":")
    if not (sequence.isdigit() and stamp.isdigit() and created):
        return None
    return Position(created, int(sequence), int(stamp))
