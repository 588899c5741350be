# SPDX-License-Identifier: GPL-3.0-or-later
"""Who reads what, as properties."""

from __future__ import annotations

import random
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipper_runtime.assignment import assign

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.", min_size=1, max_size=12)
HOSTS = st.sets(NAMES, min_size=1, max_size=12)


def owners(shares: dict[str, list[int]]) -> dict[int, str]:
    return {number: host for host, share in shares.items() for number in share}


@given(hosts=HOSTS, partitions=st.integers(1, 200), seed=st.randoms())
def test_each_partition_has_one_reader_and_loads_are_within_one(
    hosts: set[str], partitions: int, seed: random.Random
) -> None:
    """Whatever the order in which the hosts are named."""
    order = sorted(hosts)
    seed.shuffle(order)
    shares = assign(order, partitions)
    assert shares == assign(hosts, partitions)
    assert set(shares) == hosts
    assert sorted(number for share in shares.values() for number in share) == list(range(partitions))
    loads = [len(share) for share in shares.values()]
    assert max(loads) - min(loads) <= 1


@given(hosts=HOSTS, partitions=st.integers(1, 100), data=st.data())
def test_pins_hold_and_the_rest_is_as_even_as_they_permit(
    hosts: set[str], partitions: int, data: st.DataObject
) -> None:
    """Nobody gets more beside its pins than one above the least loaded."""
    pinned = data.draw(st.dictionaries(st.integers(0, partitions - 1), st.sampled_from(sorted(hosts)), max_size=30))
    pins: dict[str, list[int]] = {}
    for number, host in pinned.items():
        pins.setdefault(host, []).append(number)
    shares = assign(hosts, partitions, pins)
    assert sorted(number for share in shares.values() for number in share) == list(range(partitions))
    least = min(len(share) for share in shares.values())
    for host, share in shares.items():
        assert set(pins.get(host, [])) <= set(share)
        assert len(share) <= max(len(pins.get(host, [])), least + 1)


@settings(derandomize=True, max_examples=300)
@given(hosts=st.sets(NAMES, min_size=2, max_size=8), each=st.integers(10, 40), data=st.data())
def test_who_joins_or_leaves_moves_at_most_twice_its_share(hosts: set[str], each: int, data: st.DataObject) -> None:
    """With ten partitions or more for every consumer: its own share, and less than as many again for the balance."""
    partitions = each * len(hosts) + data.draw(st.integers(0, len(hosts) - 1))
    guest = data.draw(st.sampled_from(sorted(hosts)))
    with_guest, without = owners(assign(hosts, partitions)), owners(assign(hosts - {guest}, partitions))
    moved = sum(with_guest[number] != without[number] for number in with_guest)
    assert moved <= 2 * ceil(partitions / len(hosts))


def moved(before: set[str], after: set[str], partitions: int) -> int:
    old, new = owners(assign(before, partitions)), owners(assign(after, partitions))
    return sum(old[number] != new[number] for number in old)


@pytest.mark.parametrize("name", ["a%d", "archive%02d.example.net"])
def test_numbered_hosts_move_no_more_than_they_must(name: str) -> None:
    """Who joins takes its share and nothing else moves; who leaves gives it away; a second one moves twice that at
    most."""
    for count in range(1, 12):
        hosts = {name % number for number in range(1, count + 1)}
        for partitions in (*range(1, 40), 64, 100, 128):
            assert moved(hosts, hosts | {name % (count + 1)}, partitions) == partitions // (count + 1)
            share = ceil(partitions / count)
            for host in sorted(hosts)[: count - 1]:
                assert moved(hosts, hosts - {host}, partitions) <= share
                if count > 2:
                    rest = hosts - {host}
                    assert moved(rest, rest - {max(rest)}, partitions) <= 2 * ceil(partitions / (count - 1))


@pytest.mark.parametrize("stranger", ["a0", "b1", "new", "a1.other.example.net", "a900", "a01"])
def test_a_host_among_numbered_ones_that_is_called_otherwise_moves_twice_its_share_at_most(stranger: str) -> None:
    for count in range(3, 12):
        hosts = {"a%d" % number for number in range(1, count + 1)}
        for partitions in (5, 10, 20, 32, 50, 64, 100):
            assert moved(hosts, hosts | {stranger}, partitions) <= 2 * ceil(partitions / (count + 1))


def test_the_example_of_the_documentation_moves_little() -> None:
    """20 partitions, consumers that join one by one."""
    names = ["a%d" % number for number in range(1, 6)]
    for count in range(1, len(names)):
        assert moved(set(names[:count]), set(names[: count + 1]), 20) == 20 // (count + 1)


def test_an_assignment_does_not_change_from_one_version_to_the_next() -> None:
    """What is written here is what fleets have: another result would move their partitions."""
    assert assign(["a1", "a2", "a3"], 12) == {"a1": [0, 1, 2, 3], "a2": [8, 9, 10, 11], "a3": [4, 5, 6, 7]}
    assert assign(["one", "two", "three"], 12) == {"one": [2, 4, 5, 6], "three": [1, 3, 10, 11], "two": [0, 7, 8, 9]}
