# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from shipper_runtime.report import report


def partition(number: int = 0, **more: Any) -> dict[str, Any]:
    group = {"owner": "a1", "released": False, "lag_messages": 0, "lag_seconds": 0.0, "last_commit_seconds": 3.0}
    return {
        "partition": number, "stream": "logs-p%d" % number, "bytes": 2048, "max_bytes": 2**30, "full": False,
        "broker_full": False, "problem": None, "held_back_by": [], "groups": {"archive": group}, **more,
    }  # fmt: skip


def state(*partitions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"partitions": list(partitions), "silent": [], "unexpected": [], **more}


def problems(found: dict[str, Any], archives: dict[str, Any] | None = None) -> list[str]:
    return report(found, archives or {}, "1h", 3600).problems


def test_a_fleet_that_is_well_has_a_line_for_each_partition_and_group() -> None:
    made = report(state(partition(0), partition(1)), {"a1": {"holes": []}}, "1h", 3600)
    assert made.problems == []
    assert made.lines == [
        "PARTITION  GROUP    OWNER  LAG  AGE  STORED  LIMIT  COMMITTED  HELD BACK BY  NOTE",
        "        0  archive  a1       0   0s    2KiB   1GiB     3s ago  -",
        "        1  archive  a1       0   0s    2KiB   1GiB     3s ago  -",
        "",
        "all is well",
    ]


def test_each_thing_that_is_wrong_is_a_sentence() -> None:
    ownerless = partition(1)
    ownerless["groups"]["archive"]["owner"] = None
    assert problems(state(partition(0, full=True, held_back_by=["copy"]), ownerless)) == [
        "partition 0: full",
        "partition 0 is held back by copy: start it, or forget it with `shipper forget`",
        "partition 1 has no owner in the group archive",
    ]
    assert problems(state(partition(2, groups={}, problem="no stream", bytes=None))) == ["partition 2: no stream"]
    assert problems(state(partition()), {"a2": {"unreachable": True, "msg": "timed out"}}) == [
        "the archive host a2 cannot be asked: timed out"
    ]
    hole = {"stream": "logs-p0", "host": "web1", "source": "/a", "first": 5, "last": 9, "seconds": 61.0}
    made = report(state(partition()), {"a1": {"holes": [hole]}}, "1h", 3600)
    assert made.problems == ["lines were published and never came, see above; known holes: 1"]
    assert "a1       logs-p0  web1  5 to 8   bytes of /a  61s ago" in made.lines


def test_silent_hosts_and_strangers_are_named_and_who_left_is_only_told() -> None:
    found = state(
        partition(),
        silent=[{"host": "web1", "last_seen_seconds": 7300.0}, {"host": "web2", "last_seen_seconds": None}],
        unexpected=[{"host": "old", "last_seen_seconds": 90000.0}, {"host": "new", "last_seen_seconds": 5.0}],
    )
    made = report(found, {}, "1h", 3600)
    assert made.problems == [
        "nothing has come for 1h from web1",
        "nothing that anybody remembers has ever come from web2",
        "not in the inventory, and shipping: new",
    ]
    text = "\n".join(made.lines)
    assert "web2  silent                    never" in text
    assert "old   not in the inventory    25h ago" in text


def test_check_mode_on_empty_hosts_says_why_there_is_nothing() -> None:
    assert report(state(msg="/usr/local/bin/shipper is not there yet"), {}, "1h", 3600).lines == [
        "/usr/local/bin/shipper is not there yet"
    ]
