# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of the API's answers: floors, lag, who holds back what, and a table that can be read."""

from __future__ import annotations

from typing import Any

import pytest

from shipper_runtime.status import (
    Groups,
    HostRow,
    Row,
    floor,
    host_rows,
    host_table,
    lag,
    no_room_at_all,
    partition_rows,
    partition_table,
    table,
)

MIB = 1024 * 1024
NOON = 1_767_268_800 * 10**9


def stream(bytes_: int = 0, messages: int = 0, max_bytes: int = 100 * MIB) -> dict[str, Any]:
    return {
        "config": {"max_bytes": max_bytes},
        "state": {"bytes": bytes_, "messages": messages},
        "ts": "2026-01-01T12:00:00.5Z",
    }


def group(name: str = "archive", delivered: int = 0, acked: int = 0, pending: int = 0, **config: Any) -> dict[str, Any]:
    metadata = {"shipper-ledger": "1234", "shipper-host": "archive1"}
    return {
        "name": name,
        "config": {"durable_name": name, "metadata": metadata, **config},
        "delivered": {"stream_seq": delivered},
        "ack_floor": {"stream_seq": acked, "last_active": "2026-01-01T11:59:58.5Z"},
        "num_ack_pending": delivered - acked,
        "num_pending": pending,
    }


def only(rows: list[Row]) -> Row:
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (group(delivered=9, acked=9), 9),
        (group(delivered=9, acked=7), 7),
        # Made to begin with 5, its first message under way: 2.10 shows 0, and all before 5 is committed.
        (group(delivered=5, acked=0, opt_start_seq=5), 4),
        (group(), 0),
    ],
)
def test_a_floor_is_what_is_committed(one: dict[str, Any], expected: int) -> None:
    assert floor(one) == expected


def test_a_floor_is_what_was_delivered_where_nothing_is_pending() -> None:
    one = {**group(delivered=9, acked=0), "num_ack_pending": 0}
    assert floor(one) == 9
    assert lag(one) == 0


def test_a_row_says_owner_lag_and_ages_by_the_brokers_clock() -> None:
    found = Groups(
        stream(10 * MIB, 100), [group(delivered=95, acked=90, pending=5)], {"archive": NOON - 59_500_000_000}
    )
    assert only(partition_rows(3, "logs-p3", found, None, 0)) == Row(
        partition=3,
        stream="logs-p3",
        group="archive",
        owner="archive1",
        lag_messages=10,
        lag_seconds=60.0,
        bytes=10 * MIB,
        max_bytes=100 * MIB,
        last_commit_seconds=2.0,
    )


def test_without_lag_nothing_is_old() -> None:
    row = only(partition_rows(0, "logs-p0", Groups(stream(), [group(delivered=5, acked=5)]), None, 0))
    assert (row.lag_messages, row.lag_seconds) == (0, 0.0)


def test_a_group_without_a_ledger_is_released_and_one_that_never_committed_shows_no_age() -> None:
    one = group(metadata={"shipper-host": "archive1", "shipper-position": "5:1:x"})
    del one["ack_floor"]["last_active"]
    row = only(partition_rows(0, "logs-p0", Groups(stream(), [one]), None, 0))
    assert (row.owner, row.released, row.last_commit_seconds) == (None, True, None)
    assert "released" in partition_table([row])
    del one["config"]["metadata"]
    assert only(partition_rows(0, "logs-p0", Groups(stream(), [one]), None, 0)).released


def test_the_lowest_group_holds_back_a_stream_above_half_of_its_limit() -> None:
    late, early = group("late", 40, 40, pending=60), group("early", 95, 95, pending=5)
    rows = partition_rows(0, "logs-p0", Groups(stream(60 * MIB, 100), [early, late]), None, 0)
    assert [(row.group, row.holds_back) for row in rows] == [("early", False), ("late", True)]
    rows = partition_rows(0, "logs-p0", Groups(stream(40 * MIB, 100), [early, late]), None, 0)
    assert not any(row.holds_back for row in rows)


def test_a_reader_that_is_a_moment_behind_holds_nothing_back() -> None:
    found = Groups(stream(51 * MIB, 1000), [group(delivered=1000, acked=990)])
    assert not only(partition_rows(0, "logs-p0", found, None, 0)).holds_back


def test_a_stream_without_a_limit_is_never_full_and_nobody_holds_it_back() -> None:
    found = Groups(stream(60 * MIB, 100, max_bytes=-1), [group(pending=100)])
    row = only(partition_rows(0, "logs-p0", found, None, 0))
    assert (row.max_bytes, row.full, row.holds_back) == (None, False, False)


@pytest.mark.parametrize(
    ("bytes_", "messages", "limit", "full"),
    [
        (100 * MIB - 400 * 1024, 1000, 100 * MIB, True),
        (99 * MIB, 1000, 100 * MIB, False),
        (600 * 1024, 1000, MIB, False),
        (1000 * 1024, 1000, MIB, True),
        # The next block is refused if it is like the others.
        (600 * 1024, 1, MIB, True),
        (0, 0, MIB, False),
    ],
)
def test_a_stream_is_full_when_it_refuses_the_next_large_message(
    bytes_: int, messages: int, limit: int, full: bool
) -> None:
    row = only(partition_rows(0, "logs-p0", Groups(stream(bytes_, messages, limit), [group()]), None, 0))
    assert row.full is full
    assert ("full" in partition_table([row])) is full


@pytest.mark.parametrize("problem", ["no stream", "no answer in 5 s"])
def test_a_partition_that_cannot_be_asked_is_a_row_that_says_why(problem: str) -> None:
    row = only(partition_rows(7, "logs-p7", problem, None, 0))
    assert (row.partition, row.group, row.bytes, row.problem) == (7, None, None, problem)
    assert problem in partition_table([row])


def test_a_partition_that_nobody_reads_is_a_row_that_says_so() -> None:
    row = only(partition_rows(7, "logs-p7", Groups(stream(5, 1), []), None, 0))
    assert (row.problem, row.bytes, row.max_bytes) == ("no group", 5, 100 * MIB)
    assert "nobody reads it" in partition_table([row])


def test_a_broker_without_room_is_told_where_the_account_has_a_limit() -> None:
    def account(storage: int, limit: int) -> dict[str, Any]:
        return {"storage": storage, "limits": {"max_storage": limit}}

    assert no_room_at_all(account(5, -1)) is None
    assert no_room_at_all({"storage": 5}) is None
    assert no_room_at_all(account(50 * MIB, 100 * MIB)) is False
    assert no_room_at_all(account(100 * MIB, 100 * MIB)) is True
    tiers = {"R1": account(0, 100 * MIB), "R3": account(100 * MIB, 100 * MIB)}
    assert no_room_at_all({"storage": 0, "limits": {}, "tiers": tiers}) is True
    assert "broker full" in partition_table(partition_rows(0, "logs-p0", "no stream", True, 0))


def test_a_host_is_committed_when_every_group_is_past_its_last_message() -> None:
    found = Groups(stream(), [group("a", 50, 50), group("b", 40, 40)])
    rows = host_rows(2, {"web2": (50, NOON), "web1": (40, NOON - 9_500_000_000)}, found, 0)
    assert rows == [
        HostRow("web1", 2, 40, True, {"a": 0, "b": 0}, 10.0),
        HostRow("web2", 2, 50, False, {"a": 0, "b": 10}, 0.5),
    ]
    text = host_table(rows)
    assert "yes" in text and "no: b 10 behind" in text
    alone = host_rows(2, {"web1": (40, NOON)}, Groups(stream(), []), 0)
    assert alone[0].committed is None
    assert "no group" in host_table(alone)


def test_a_table_is_aligned_and_readable() -> None:
    row = Row(0, "logs-p0", "archive", "archive1", False, 12, 7300.0, 1536, 1024**3, False, True, 119.0)
    assert partition_table([row, Row(10, "logs-p10", problem="no stream")]) == (
        "PARTITION  STREAM    GROUP    OWNER     LAG  AGE  STORED  LIMIT  COMMITTED  NOTE\n"
        "        0  logs-p0   archive  archive1   12   2h  1.5KiB   1GiB   119s ago  holds back\n"
        "       10  logs-p10  -        -           -    -       -      -          -  "
        "no stream: run shipper streams\n"
    )
    assert table(("A", "B"), [("long", "x")]) == "A     B\nlong  x\n"


def test_whatever_others_write_into_metadata_stays_on_its_line() -> None:
    row = Row(0, "logs-p0", "a", "archive1\x1b[2J\n", False, 0, 0.0)
    assert partition_table([row]).count("\n") == 2
    assert "\x1b" not in partition_table([row])
