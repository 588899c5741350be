# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.filter.assign_partitions import FilterModule, assign_partitions


def test_every_partition_has_one_reader_and_loads_are_even():
    shares = assign_partitions(["a1", "a2", "a3"], 20)
    assert sorted(shares) == ["a1", "a2", "a3"]
    assert sorted(number for share in shares.values() for number in share) == list(range(20))
    assert sorted(len(share) for share in shares.values()) == [6, 7, 7]
    assert all(share == sorted(share) for share in shares.values())


def test_the_order_of_the_hosts_and_their_repetition_do_not_count():
    assert assign_partitions(["a2", "a1", "a2"], 20) == assign_partitions(["a1", "a2"], 20)


def test_a_fleet_without_partitions_has_one_to_read():
    assert assign_partitions(["a1"], 0) == {"a1": [0]}


def test_a_host_for_which_there_is_no_partition_has_an_empty_share():
    assert sorted(map(len, assign_partitions(["a1", "a2", "a3"], 2).values())) == [0, 1, 1]


def test_pinned_partitions_stay_where_they_are_and_count_as_load():
    shares = assign_partitions(["a1", "a2"], 20, pins={"a2": [3, 4, 5]})
    assert {3, 4, 5} <= set(shares["a2"])
    assert [len(shares["a1"]), len(shares["a2"])] == [10, 10]


def test_who_has_more_pinned_than_its_share_gets_no_more():
    shares = assign_partitions(["a1", "a2", "a3"], 10, pins={"a2": list(range(6))})
    assert shares["a2"] == [0, 1, 2, 3, 4, 5]
    assert [len(shares["a1"]), len(shares["a3"])] == [2, 2]


@pytest.mark.parametrize(
    ("hosts", "partitions", "pins", "message"),
    [
        ([], 20, None, "there is no consumer to read partitions 0 to 19: add one"),
        ([], 0, None, "there is no consumer to read partition 0: add one"),
        (
            ["a1"],
            5,
            {"a2": [1]},
            "pins name a2, which is not among the consumers: add it there, or unpin it",
        ),
        (["a1", "a2"], 5, {"a1": [1], "a2": [1]}, "partition 1 is pinned to a1 and to a2: leave it to one"),
        (["a1"], 5, {"a1": [5]}, "partition 5 is pinned to a1, but the fleet has partitions 0 to 4"),
        (["a1"], 65537, None, "65537 partitions are more than 65536: use fewer"),
        ("a1", 5, None, "'a1' is not a list: use a list of host names"),
        ([1], 5, None, "1 is not a host name: use a string"),
        ([""], 5, None, "'' is not a host name: use a string"),
        (["a1"], True, None, "True is not a number of partitions: use a whole number, 0 or more"),
        (["a1"], -1, None, "-1 is not a number of partitions: use a whole number, 0 or more"),
        (["a1"], 5.0, None, "5.0 is not a number of partitions: use a whole number, 0 or more"),
        (["a1"], "5", None, "'5' is not a number of partitions: use a whole number, 0 or more"),
        (["a1"], 5, [1], "pins=[1] is not a dictionary: use a list of partitions for each host"),
        (["a1"], 5, {"a1": 1}, "pins of a1 are 1: use a list of whole numbers"),
        (["a1"], 5, {"a1": [True]}, "pins of a1 are [True]: use a list of whole numbers"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_a_sentence(hosts, partitions, pins, message):
    with pytest.raises(AnsibleFilterError) as error:
        assign_partitions(hosts, partitions, pins)
    assert str(error.value) == "assign_partitions: " + message


def test_the_filter_is_found_by_its_name():
    assert FilterModule().filters() == {"assign_partitions": assign_partitions}
