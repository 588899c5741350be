# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.logfleet.shipper.plugins.modules.partition_streams import (
    arguments,
    difference,
    is_changed,
    shown,
)

NOTHING = {"max_bytes": None, "replicas": None, "max_age": None, "duplicates": None, "force": False}
UNCHANGED = {"stream": "logs-p0", "partition": 0, "action": "unchanged", "changes": {}, "readable": {}}
UPDATED = {
    "stream": "logs-p1",
    "partition": 1,
    "action": "updated",
    "changes": {"max_bytes": [1073741824, 2147483648]},
    "readable": {"max_bytes": ["1GiB", "2GiB"]},
}
CREATED = {
    "stream": "logs-p2",
    "partition": 2,
    "action": "created",
    "changes": {"max_age": [None, 0]},
    "readable": {"max_age": [None, "none"]},
}


def test_what_is_not_said_is_left_to_the_settings():
    assert arguments(NOTHING, False) == []
    assert arguments(NOTHING, True) == ["--dry-run"]


def test_each_option_is_a_flag_of_the_program():
    params = {"max_bytes": "2GiB", "replicas": 3, "max_age": "0", "duplicates": "5m", "force": True}
    assert arguments(params, False) == [
        *("--stream-max-bytes", "2GiB", "--stream-replicas", "3"),
        *("--stream-max-age", "0", "--stream-duplicates", "5m", "--force"),
    ]


def test_the_diff_has_what_changes_in_words():
    assert difference([UNCHANGED, UPDATED, CREATED]) == {
        "before": {"logs-p1": {"max_bytes": "1GiB"}},
        "after": {"logs-p1": {"max_bytes": "2GiB"}, "logs-p2": {"max_age": "none"}},
    }
    older = {name: value for name, value in UPDATED.items() if name != "readable"}
    assert difference([older])["after"] == {"logs-p1": {"max_bytes": 2147483648}}


def test_only_what_was_done_is_a_change():
    assert [is_changed([]), is_changed([UNCHANGED]), is_changed([UNCHANGED, CREATED])] == [False, False, True]
    assert shown([UPDATED]) == [{name: value for name, value in UPDATED.items() if name != "readable"}]
