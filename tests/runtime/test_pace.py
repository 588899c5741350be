# SPDX-License-Identifier: GPL-3.0-or-later
"""A rate is kept over any span of time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shipper_runtime.pace import Pace

MOST = 512 * 1024


@given(
    rate=st.integers(1, 10**9),
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(1, MOST)), min_size=1, max_size=60),
)
def test_over_any_span_no_more_is_spent_than_the_rate_allows_but_for_one_piece(
    rate: int, steps: list[tuple[float, int]]
) -> None:
    pace, now = Pace(rate), 1000.0
    spent: list[tuple[float, int]] = []
    for pause, wanted in steps:
        now += pause
        if not pace.wait(now):
            size = min(wanted, pace.piece(MOST))
            pace.spend(size, now)
            spent.append((now, size))
    for first, (begin, _size) in enumerate(spent):
        for end, _size in spent[first:]:
            total = sum(size for at, size in spent if begin <= at <= end)
            assert total <= rate * (end - begin) + pace.piece(MOST) + 1


def test_a_piece_is_a_fraction_of_a_second_and_never_tiny() -> None:
    assert Pace(1000).piece(MOST) == 4096
    assert Pace(80_000).piece(MOST) == 10_000
    assert Pace(10**9).piece(MOST) == MOST


def test_without_a_rate_nothing_waits() -> None:
    pace = Pace(None)
    pace.spend(10**12, 5.0)
    assert pace.wait(5.0) == 0.0
    assert pace.piece(MOST) == MOST
