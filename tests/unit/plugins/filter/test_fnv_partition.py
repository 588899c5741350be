# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.filter.fnv_partition import FilterModule, fnv_partition

HOST_REMEDY = "use 1 to 253 ASCII letters, digits, - _ and ., without empty labels"


@pytest.mark.parametrize(
    ("host", "partitions", "expected"),
    [
        ("foo", 10, 3),
        ("baz", 10, 0),
        ("qux", 10, 9),
        ("foo.bar", 10, 6),
        ("foo.baz", 10, 4),
        ("web1.example.net", 10, 5),
        ("web1.example.net", 5, 0),
        ("web3.example.net", 5, 2),
        ("web1", 1, 0),
        ("web1", 0, 0),
    ],
)
def test_a_host_is_in_the_partition_that_the_program_and_nats_server_compute(host, partitions, expected):
    assert fnv_partition(host, partitions) == expected


def test_a_name_is_taken_byte_for_byte():
    assert fnv_partition("WEB1", 1000) != fnv_partition("web1", 1000)


@pytest.mark.parametrize("host", ["", "a b", "a/b", "a..b", ".a", "a.", "w\u00e9b", "a" * 254, "web1\n", "*", ">"])
def test_what_cannot_be_part_of_a_subject_is_refused(host):
    with pytest.raises(AnsibleFilterError) as error:
        fnv_partition(host, 10)
    assert str(error.value) == "fnv_partition: %r cannot be part of a subject: %s" % (host, HOST_REMEDY)


@pytest.mark.parametrize("host", [None, 1, True, ["web1"], b"web1"])
def test_what_is_no_text_is_no_host(host):
    with pytest.raises(AnsibleFilterError) as error:
        fnv_partition(host, 10)
    assert str(error.value) == "fnv_partition: %r is not a host name: use a string" % (host,)


@pytest.mark.parametrize("partitions", [True, False, -1, 1.0, "10", None, [10]])
def test_only_whole_numbers_count_partitions(partitions):
    with pytest.raises(AnsibleFilterError) as error:
        fnv_partition("web1", partitions)
    assert str(error.value) == (
        "fnv_partition: %r is not a number of partitions: use a whole number, 0 or more" % (partitions,)
    )


def test_the_filter_is_found_by_its_name():
    assert FilterModule().filters() == {"fnv_partition": fnv_partition}
