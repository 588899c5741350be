# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.logfleet.shipper.plugins.module_utils.fleet import (
    duration,
    last_seen,
    partitions,
    silent,
    unexpected,
)


def row(group, holds_back=False, number=0):
    return {
        "partition": number,
        "stream": "logs-p%d" % number,
        "group": group,
        "owner": "a1",
        "released": False,
        "lag_messages": 3,
        "lag_seconds": 1.5,
        "bytes": 10,
        "max_bytes": 100,
        "full": False,
        "holds_back": holds_back,
        "last_commit_seconds": 2.0,
        "broker_full": None,
        "problem": None,
    }


def test_the_groups_of_a_partition_are_brought_together():
    found = partitions([row("copy", True, 1), row("archive", number=1), {**row(None), "problem": "no group"}])
    assert [entry["partition"] for entry in found] == [0, 1]
    assert found[0]["groups"] == {} and found[0]["problem"] == "no group"
    assert sorted(found[1]["groups"]) == ["archive", "copy"]
    assert found[1]["held_back_by"] == ["copy"]
    assert found[1]["groups"]["archive"] == {
        "owner": "a1",
        "released": False,
        "lag_messages": 3,
        "lag_seconds": 1.5,
        "last_commit_seconds": 2.0,
    }


def test_whoever_saw_a_host_last_is_right():
    rows = [{"host": "web1", "last_seen_seconds": 50.0}, {"host": "web1", "last_seen_seconds": 40.0}]
    assert last_seen(rows, {"web1": 45.0, "web2": 9.0}, {"web2": 7.0}) == {"web1": 40.0, "web2": 7.0}


def test_a_host_is_silent_that_was_not_seen_for_so_long_or_never():
    seen = {"web1": 60.0, "web2": 3601.0, "web4": 3600.0}
    assert silent(["web4", "web3", "web2", "web1", "web2"], seen, 3600) == [
        {"host": "web2", "last_seen_seconds": 3601.0},
        {"host": "web3", "last_seen_seconds": None},
    ]


def test_a_host_is_unexpected_of_which_a_stream_holds_something():
    rows = [{"host": name, "last_seen_seconds": age} for name, age in (("web1", 1.0), ("old", 9.0), ("old", 5.0))]
    assert unexpected(["web1"], rows) == [{"host": "old", "last_seen_seconds": 5.0}]


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0), ("90m", 5400), ("1h", 3600), ("2d", 172800), ("1w", 604800)])
def test_durations_are_numbers_with_a_unit(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "1 h", "-1h", "1.5h", "1h\n", "1y"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="use a whole number and one of s, m, h, d, w, such as 1h"):
        duration(text)
