# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.filter.broker_file_store import FilterModule

broker_file_store = FilterModule().filters()["broker_file_store"]
MIB = 2**20


@pytest.mark.parametrize(
    ("given", "partitions", "replicas", "brokers", "expected"),
    [
        ("", 4, 1, 1, 4 * 100 * 1.25 * MIB + 64 * MIB),
        ("", 0, 1, 1, 100 * 1.25 * MIB + 64 * MIB),
        ("", 10, 3, 3, 10 * 100 * 1.25 * MIB + 64 * MIB),
        ("", 10, 1, 3, 4 * 100 * 1.25 * MIB + 64 * MIB),
        ("2GiB", 10, 1, 3, 2048 * MIB),
    ],
)
def test_it_is_the_brokers_share_with_room(given, partitions, replicas, brokers, expected):
    assert broker_file_store(given, partitions, "100MiB", str(replicas), brokers) == expected


def test_a_size_that_is_none_is_named():
    with pytest.raises(
        AnsibleFilterError, match="broker_max_file_store=much: use a whole number above 0 and one of KiB"
    ):
        broker_file_store("much", 1, "1GiB", 1, 1)
    with pytest.raises(AnsibleFilterError, match="shipper_stream_max_bytes=1 GB!: use a whole number above 0"):
        broker_file_store("", 1, "1 GB!", 1, 1)
