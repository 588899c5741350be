# SPDX-License-Identifier: GPL-3.0-or-later
"""What is freed in a stream: what every group has committed, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipper_runtime.jetstream import JetStream
from shipper_runtime.ledger import Ledger, Position
from shipper_runtime.trim import (
    FORGOTTEN,
    Trimmer,
    durables,
    floor_of,
    history_bytes,
    merge_floors,
    of_this_past,
    purge_before,
)

STREAM, CREATED = "logs-p0", "2024-01-01T00:00:00Z"


def consumer(
    name: str, acknowledged: int, delivered: int = 0, pending: int = 0, durable: bool = True
) -> dict[str, Any]:
    """As the API shows it."""
    return {
        "name": name,
        "config": {"durable_name": name} if durable else {},
        "delivered": {"consumer_seq": 1, "stream_seq": delivered or acknowledged},
        "ack_floor": {"consumer_seq": 1, "stream_seq": acknowledged},
        "num_ack_pending": pending,
    }


@pytest.mark.parametrize(
    ("acknowledged", "delivered", "pending", "floor"),
    [
        (0, 0, 0, 0),  # made to read all, nothing delivered
        (0, 41, 0, 41),  # before 2.14: made to begin at 42, nothing delivered
        (41, 41, 0, 41),  # from 2.14 on: made to begin at 42, nothing delivered
        (0, 44, 3, 0),  # before 2.14: delivered, nothing acknowledged yet
        (41, 44, 3, 41),  # from 2.14 on
        (43, 44, 1, 43),
        (44, 44, 0, 44),
    ],
)
def test_a_floor_is_what_is_acknowledged_whatever_the_server_shows_of_a_durable_that_is_new(
    acknowledged: int, delivered: int, pending: int, floor: int
) -> None:
    assert floor_of(consumer("archive", acknowledged, delivered, pending)) == floor


def test_consumers_that_are_not_durable_are_no_groups() -> None:
    assert durables([consumer("a", 1), consumer("looker", 2, durable=False)]).keys() == {"a"}


def test_a_group_that_is_seen_counts_as_it_is_seen() -> None:
    assert merge_floors({"a": (50, 1)}, [consumer("a", 30), consumer("b", 7)], None, 9) == {"a": (30, 9), "b": (7, 9)}


def test_a_group_that_is_not_visible_counts_with_what_is_remembered() -> None:
    assert merge_floors({"a": (5, 1)}, [consumer("b", 7)], {}, 9) == {"a": (5, 1), "b": (7, 9)}
    assert merge_floors({"a": (5, 1)}, [], None, 9) == {"a": (5, 1)}


@pytest.mark.parametrize(("mark", "counts"), [("8", False), ("7", False), ("6", True), ("", True), ("soon", True)])
def test_a_group_that_was_forgotten_behind_its_last_sight_does_not_count(mark: str, counts: bool) -> None:
    merged = merge_floors({"a": (5, 7)}, [], {FORGOTTEN + "a": mark, FORGOTTEN + "b": "100"}, 9)
    assert merged == ({"a": (5, 7)} if counts else {})


def test_a_forgotten_group_that_came_back_counts_again_also_when_it_is_not_visible_any_more() -> None:
    forgotten = {FORGOTTEN + "a": "8"}
    assert merge_floors({"a": (5, 7)}, [], forgotten, 9) == {}
    back = merge_floors({}, [consumer("a", 6)], forgotten, 10)
    assert back == {"a": (6, 10)}
    assert merge_floors(back, [], forgotten, 11) == back


def test_a_floor_beyond_the_streams_end_counts_as_nothing() -> None:
    assert of_this_past({"a": (5, 1), "b": (9, 2), "c": (8, 3)}, 8) == {"a": (5, 1), "b": (0, 2), "c": (8, 3)}


@given(st.integers(1, 2**40), st.integers(0, 2**30))
def test_beside_the_history_there_is_room_for_the_largest_message_where_the_stream_can_hold_one(
    max_bytes: int, max_payload: int
) -> None:
    assert history_bytes(max_bytes, max_payload, quiet=0.0) == max_bytes // 2
    history = history_bytes(max_bytes, max_payload, quiet=60.0)
    assert 0 <= history <= max_bytes // 2
    assert history == 0 or max_bytes - history > max_payload


@st.composite
def streams(draw: st.DrawFn) -> dict[str, int]:
    first = draw(st.integers(1, 10**6))
    last = first - 1 + draw(st.integers(0, 1000))
    # Messages may be missing in between.
    messages = draw(st.integers(min(1, last - first + 1), last - first + 1))
    return {
        "first_seq": first,
        "last_seq": last,
        "messages": messages,
        "bytes": messages * draw(st.integers(40, 10**5)),
    }


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, int], int, list[int]]:
    state = draw(streams())
    near = st.integers(max(0, state["first_seq"] - 2), state["last_seq"] + 2)
    floors = draw(st.lists(st.one_of(near, near, st.just(state["last_seq"]), st.just(0)), max_size=4))
    return state, draw(st.one_of(st.integers(0, 2 * state["bytes"] + 2), st.just(0))), floors


@given(cases())
def test_nothing_is_purged_that_a_group_has_not_committed(case: tuple[dict[str, int], int, list[int]]) -> None:
    state, history, floors = case
    before = purge_before(state, history, floors)
    if before is None:
        return
    assert floors
    assert state["first_seq"] < before
    # The floor's own message stays, but for one that alone is more than may stay.
    alone = state["messages"] == 1 and before == state["last_seq"] + 1
    assert all(before <= floor + alone for floor in floors)
    assert before <= state["last_seq"] + alone
    assert max(floors) <= state["last_seq"]


@given(cases())
def test_beyond_what_may_stay_something_is_purged_whenever_all_have_committed_it_and_else_nothing(
    case: tuple[dict[str, int], int, list[int]],
) -> None:
    state, history, floors = case
    lowest, highest = min(floors, default=0), max(floors, default=0)
    due = state["messages"] > 0 and state["bytes"] > history and highest <= state["last_seq"]
    committed = lowest > state["first_seq"] or (state["messages"] == 1 and lowest >= state["last_seq"])
    assert (purge_before(state, history, floors) is not None) == (due and committed)


@given(cases())
def test_no_more_is_purged_than_it_takes_if_all_messages_are_alike(
    case: tuple[dict[str, int], int, list[int]],
) -> None:
    state, history, floors = case
    dense = {**state, "messages": state["last_seq"] - state["first_seq"] + 1}
    if dense["messages"] > 1:
        dense["bytes"] = dense["messages"] * 1000
        before = purge_before(dense, history, floors)
        if before is not None:
            assert dense["bytes"] - (before - dense["first_seq"] - 1) * 1000 > history


class Stream:
    """What the trimmer asks of a JetStream, of messages of one size."""

    def __init__(self, messages: int, size: int, max_bytes: int) -> None:
        self.sequences = list(range(1, messages + 1))
        self.last = messages
        self.size = size
        self.consumers_now: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {"max_bytes": max_bytes}
        self.created = CREATED
        self.quiet = 20
        self.link = type("Link", (), {"max_payload": 1000})()

    async def consumers(self, stream: str, complete: bool = False) -> list[dict[str, Any]]:
        assert complete
        return self.consumers_now

    async def stream_info(self, stream: str) -> dict[str, Any]:
        first = self.sequences[0] if self.sequences else self.last + 1
        held = len(self.sequences)
        state: dict[str, Any] = {"first_seq": first, "last_seq": self.last, "messages": held}
        state.update(bytes=held * self.size, last_ts="2026-01-31T10:00:00Z")
        now = "2026-01-31T10:00:%02dZ" % self.quiet
        return {"config": self.config, "state": state, "created": self.created, "ts": now}

    async def purge(self, stream: str, sequence: int) -> int:
        assert sequence <= self.last + 1, "a purge beyond the end deletes everything"
        left = [each for each in self.sequences if each >= sequence]
        purged = len(self.sequences) - len(left)
        self.sequences = left
        return purged


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with contextlib.closing(Ledger(str(tmp_path))) as made:
        made.begin(STREAM, Position(CREATED), forget_lives=False)
        yield made


def trim(ledger: Ledger, stream: Any, committed: int, said: list[str] | None = None) -> list[int]:
    """What the stream holds afterwards."""
    trimmer = Trimmer(ledger, STREAM, "archive")
    if said is not None:
        trimmer.held_back = lambda text, *arguments: said.append(text % arguments)
    js: JetStream = stream
    asyncio.run(trimmer.trim(js, committed, CREATED))
    return list(stream.sequences)


def test_a_stream_is_trimmed_to_half_of_its_limit_behind_what_all_groups_committed(ledger: Ledger) -> None:
    stream = Stream(100, 10_000, 1_000_000)
    stream.consumers_now = [consumer("archive", 90), consumer("other", 80)]
    assert trim(ledger, stream, 90)[0] == 51
    assert trim(ledger, stream, 90)[0] == 51


def test_a_group_that_lags_holds_the_stream_also_while_its_durable_is_not_to_be_seen(ledger: Ledger) -> None:
    stream = Stream(100, 10_000, 1_000_000)
    stream.consumers_now = [consumer("archive", 90), consumer("other", 20)]
    assert trim(ledger, stream, 90)[0] == 20
    stream.consumers_now = [consumer("archive", 95)]
    said: list[str] = []
    assert trim(ledger, stream, 95, said)[0] == 20
    assert len(said) == 1
    assert "held back by the group other, which has committed 20" in said[0]
    stream.config["metadata"] = {FORGOTTEN + "other": str(2**62)}
    assert trim(ledger, stream, 95)[0] == 51


def test_the_own_floor_is_what_is_committed_and_not_what_the_durable_shows(ledger: Ledger) -> None:
    stream = Stream(100, 10_000, 1_000_000)
    stream.consumers_now = [consumer("archive", 90)]
    assert trim(ledger, stream, 30)[0] == 30


def test_a_stream_that_was_made_anew_or_has_no_limit_is_left_alone(ledger: Ledger) -> None:
    stream = Stream(100, 10_000, 1_000_000)
    stream.created = "2025"
    assert len(trim(ledger, stream, 90)) == 100
    assert len(trim(ledger, Stream(100, 10_000, -1), 90)) == 100


def test_floors_of_a_streams_other_past_purge_nothing(ledger: Ledger) -> None:
    stream = Stream(100, 10_000, 1_000_000)
    stream.consumers_now = [consumer("archive", 90), consumer("other", 101)]
    assert len(trim(ledger, stream, 90)) == 100


def test_a_message_that_alone_fills_a_small_stream_goes_once_it_is_committed(ledger: Ledger) -> None:
    stream = Stream(1, 9_000, 10_000)
    stream.consumers_now = [consumer("archive", 1), consumer("other", 0)]
    assert trim(ledger, stream, 1) == [1]
    stream.consumers_now = [consumer("archive", 1), consumer("other", 1)]
    assert trim(ledger, stream, 0) == [1]


def test_room_for_the_largest_message_is_made_only_when_nothing_comes(ledger: Ledger) -> None:
    stream = Stream(4, 1_000, 10_000)
    stream.link.max_payload = 9_900
    stream.consumers_now = [consumer("archive", 4)]
    stream.quiet = 3
    assert trim(ledger, stream, 4) == [1, 2, 3, 4]
    stream.quiet = 20
    assert trim(ledger, stream, 4) == []


def test_what_is_committed_and_fills_a_stream_goes(ledger: Ledger) -> None:
    stream = Stream(1, 9_000, 10_000)
    stream.consumers_now = [consumer("archive", 1)]
    assert trim(ledger, stream, 1) == []
