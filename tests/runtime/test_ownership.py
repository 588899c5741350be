# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a partition is, by what its durable says and what the own ledger knows."""

from __future__ import annotations

from typing import Any

import pytest

from shipper_runtime.ledger import Position
from shipper_runtime.ownership import Archive, NotOurs, Start, is_old_copy, released, start

CREATED = "2026-01-31T10:00:00Z"
ME = Archive("1" * 32, "archive1", "/srv/archive")
ANEW = Archive("2" * 32, "archive1", "/srv/archive")
OTHER = Archive("3" * 32, "archive2", "/srv/archive")
KNOWN = Position(CREATED, 7, 70, 69)


def durable(metadata: dict[str, str], floor: int = 9) -> dict[str, Any]:
    state = {"delivered": {"stream_seq": floor}, "ack_floor": {"stream_seq": floor}, "num_ack_pending": 0}
    return {"config": {"name": "archive", "metadata": metadata}, **state}


def test_a_stream_that_nobody_has_read_is_begun_at_its_first_message() -> None:
    assert start(ME, None, None, CREATED, False) == Start(Position(CREATED), new=True)
    assert start(ME, durable(ME.metadata), None, CREATED, False) == Start(Position(CREATED), new=True)


@pytest.mark.parametrize("found", [None, durable(ME.metadata)])
def test_an_own_stream_goes_on_behind_what_the_ledger_knows_and_not_the_broker(found: dict[str, Any] | None) -> None:
    assert start(ME, found, KNOWN, CREATED, False) == Start(KNOWN, told=False)


@pytest.mark.parametrize(
    ("found", "known", "old"),
    [
        (durable(ME.metadata, 7), KNOWN, False),
        (durable(ME.metadata, 8), KNOWN, True),
        (durable(ME.metadata, 8), KNOWN._replace(created="2025-01-31T10:00:00Z"), False),
        (durable(ME.metadata, 8), KNOWN._replace(sequence=0, replay_until=70), False),
        (durable(ME.metadata, 8), None, True),
        (durable(ME.metadata, 0), None, False),
        (durable(ME.metadata, 4), KNOWN._replace(sequence=3), False),
        (durable(OTHER.metadata, 8), KNOWN, False),
        (None, KNOWN, False),
    ],
)
def test_a_ledger_that_knows_less_than_was_acknowledged_in_its_name_is_an_old_copy(
    found: dict[str, Any] | None, known: Position | None, old: bool
) -> None:
    info = {"created": CREATED, "state": {"first_seq": 5}}
    assert is_old_copy(ME, found, known, info) is old


@pytest.mark.parametrize("known", [None, KNOWN])
def test_another_archives_stream_is_left_alone_and_its_host_is_named(known: Position | None) -> None:
    with pytest.raises(NotOurs, match="archive2"):
        start(ME, durable(OTHER.metadata), known, CREATED, False)


def test_a_stream_is_taken_over_behind_what_its_owner_has_acknowledged_only_when_that_is_wanted() -> None:
    found = start(ME, durable(OTHER.metadata), KNOWN, CREATED, True)
    assert (found.position, found.told, found.new) == (Position(CREATED, 9), True, False)
    assert "archive2" in found.why


def test_what_another_archive_has_released_goes_on_where_that_one_ended() -> None:
    position = Position(CREATED, 20, 200, 199)
    config = released(OTHER.ledger, position, {"name": "archive", "metadata": {**OTHER.metadata, "mine": "kept"}})
    assert config["metadata"]["mine"] == "kept"
    assert start(ME, durable(config["metadata"]), KNOWN, CREATED, False) == Start(Position(CREATED, 20, 200))


def test_what_this_archive_has_released_and_nobody_took_goes_on_with_all_that_is_known_of_it() -> None:
    config = released(ME.ledger, KNOWN, {"name": "archive", "metadata": ME.metadata})
    assert start(ME, durable(config["metadata"]), KNOWN, CREATED, False) == Start(KNOWN)


def test_a_durable_of_unknown_origin_counts_with_what_it_has_acknowledged() -> None:
    assert start(ME, durable({}), None, CREATED, False) == Start(Position(CREATED, 9))
    assert start(ME, durable({"shipper-position": "x:y"}), None, CREATED, False) == Start(Position(CREATED, 9))


def test_an_archive_whose_ledger_is_lost_knows_its_own_streams_by_host_and_root() -> None:
    found = start(ANEW, durable(ME.metadata), None, CREATED, False)
    assert (found.position, found.new) == (Position(CREATED, 9), False)
    assert "the ledger is lost" in found.why
    elsewhere = Archive(ANEW.ledger, "archive1", "/srv/other")
    with pytest.raises(NotOurs):
        start(elsewhere, durable(ME.metadata), None, CREATED, False)
