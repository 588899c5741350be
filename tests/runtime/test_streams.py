# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decided about the partitions' streams, without a broker."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shipper_runtime.settings import FleetSettings, StreamLimits, fleet_settings, stream_limits
from shipper_runtime.streamplan import (
    SECOND,
    Plan,
    desired,
    difference,
    least_time,
    plan,
    readable,
    refusals,
    refused,
    rows,
    size,
    told,
)

FLEET = fleet_settings(
    {"NATS_URL": "localhost", "SHIPPER_SUBJECT": "shipper", "SHIPPER_STREAM": "logs", "SHIPPER_PARTITIONS": "10"}
)
LIMITS = StreamLimits(max_bytes=2**30, replicas=1, max_age=0, duplicates=120)
NOW = 1_800_000_000 * SECOND

limits = st.builds(
    StreamLimits,
    max_bytes=st.integers(2**20, 2**50),
    replicas=st.integers(1, 5),
    max_age=st.just(0) | st.integers(1, 10**8),
    duplicates=st.integers(1, 10**5),
)
WORDS = st.sampled_from(["", "s2", "web1.example.net", "1700000000000000000"])
# What an operator may have set, or a later server may know.
theirs = st.dictionaries(
    st.sampled_from(["placement", "compression", "max_msgs", "metadata", "republish", "a_field_of_nats_server_9"]),
    st.integers() | WORDS | st.dictionaries(WORDS, WORDS, max_size=2),
)


def server_says(config: dict[str, Any], messages: int = 0, stored: int = 0, age: int = 0) -> dict[str, Any]:
    """What STREAM.INFO answers; age of the first message in seconds."""
    first = datetime.fromtimestamp(NOW // SECOND - age, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"messages": messages, "bytes": stored, "first_ts": first if messages else "0001-01-01T00:00:00Z"}
    return {"config": config, "state": state}


def reasons(the_plan: Plan, *others: str, force: bool = False) -> str:
    """The line of why a plan is refused, or nothing."""
    return str(refused(refusals(FLEET, the_plan, others, NOW), force) or "")


def changed(messages: int = 0, stored: int = 0, age: int = 0, wanted: StreamLimits = LIMITS, **config: Any) -> Plan:
    """The plan for partition 3's stream, which is there and has these fields otherwise."""
    return plan(FLEET, wanted, 3, server_says({**desired(FLEET, LIMITS, 3), **config}, messages, stored, age))


def test_a_stream_keeps_everything_on_disk_and_refuses_when_it_is_full() -> None:
    config = desired(FLEET, LIMITS, 3)
    assert config == {
        "name": "logs-p3", "description": "Log lines of partition 3, for logfleet.shipper",
        "subjects": ["shipper.p3.>"], "storage": "file", "retention": "limits", "discard": "new",
        "num_replicas": 1, "max_bytes": 2**30, "max_age": 0, "duplicate_window": 120 * 10**9, "allow_direct": True,
        "sealed": False, "deny_delete": False, "deny_purge": False,
    }  # fmt: skip


@given(st.integers(0, 9), limits)
def test_times_are_in_ns_on_the_wire(number: int, wanted: StreamLimits) -> None:
    config = desired(FLEET, wanted, number)
    assert (config["max_age"], config["duplicate_window"]) == (wanted.max_age * 10**9, wanted.duplicates * 10**9)


@given(limits, limits, theirs)
def test_what_was_done_once_needs_nothing_the_second_time(before: StreamLimits, after: StreamLimits, more: Any) -> None:
    first = plan(FLEET, before, 3, server_says({**more, **desired(FLEET, before, 3)}))
    assert (first.action, first.changes) == ("unchanged", {})
    second = plan(FLEET, after, 3, first.found)
    assert second.action == ("unchanged" if before == after else "updated")
    assert plan(FLEET, after, 3, server_says(second.config)).action == "unchanged"


@given(limits, theirs)
def test_what_an_operator_has_set_beyond_ours_stays(wanted: StreamLimits, more: dict[str, Any]) -> None:
    the_plan = changed(wanted=wanted, **more)
    assert {field: the_plan.config[field] for field in more} == more
    assert not set(the_plan.changes) & set(more)


@given(limits, theirs)
def test_a_change_names_exactly_the_fields_that_are_sent_otherwise(wanted: StreamLimits, more: dict[str, Any]) -> None:
    the_plan = changed(wanted=wanted, **more)
    assert the_plan.found is not None
    found = the_plan.found["config"]
    assert {**found, **{field: after for field, (_before, after) in the_plan.changes.items()}} == the_plan.config
    assert all(found[field] == before != after for field, (before, after) in the_plan.changes.items())


def test_a_field_that_the_server_leaves_out_is_empty_zero_or_false() -> None:
    wanted = desired(FLEET, LIMITS, 3)
    silent = {field: value for field, value in wanted.items() if value}
    assert difference(silent, wanted) == {}
    del silent["allow_direct"], silent["description"]
    assert difference(silent, wanted) == {
        "allow_direct": (False, True),
        "description": ("", "Log lines of partition 3, for logfleet.shipper"),
    }


def test_a_new_stream_has_null_before_each_field() -> None:
    (row,) = rows([plan(FLEET, LIMITS, 3, None)])
    assert (row["stream"], row["partition"], row["action"]) == ("logs-p3", 3, "created")
    assert row["changes"]["max_bytes"] == [None, 2**30]
    assert "name" not in row["changes"]


def test_growing_and_what_loses_nothing_is_not_refused() -> None:
    assert not reasons(plan(FLEET, LIMITS, 3, None))
    assert not reasons(changed(5, 2**30, 10**6, max_bytes=2**20))
    assert not reasons(changed(5, 2**30, max_bytes=-1)), "exactly what is stored is enough"
    assert not reasons(changed(5, 10, 86400, replace(LIMITS, max_age=86400)))
    assert not reasons(changed(5, 10, 86400, max_age=3600 * SECOND)), "no limit from now on"
    assert not reasons(changed(0, 0, 0, replace(LIMITS, max_age=120)))
    assert not reasons(changed(discard="old", num_replicas=3, allow_direct=False, duplicate_window=SECOND))


def test_a_limit_that_is_as_it_was_is_not_refused_again() -> None:
    assert not reasons(changed(5, 2**31, description="other"))
    aged = replace(LIMITS, max_age=3600)
    assert not reasons(changed(5, 10, 7200, aged, max_age=3600 * SECOND, description="other"))


@given(st.integers(2**20, 2**40), st.integers(0, 2**40), st.integers(2**20, 2**40) | st.just(-1))
def test_a_size_below_what_is_stored_is_refused(after: int, stored: int, before: int) -> None:
    text = reasons(changed(1, stored, wanted=replace(LIMITS, max_bytes=after), max_bytes=before))
    shrinks = before == -1 or after < before
    assert bool(text) == (shrinks and after < stored)
    if text:
        assert text.startswith("SHIPPER_STREAM_MAX_BYTES=%s: stream logs-p3 " % size(after))
        remedy = text.partition("use ")[2].partition(" or more")[0]
        assert stream_limits({"SHIPPER_STREAM_MAX_BYTES": remedy}).max_bytes >= stored


@given(st.integers(1, 10**8), st.integers(0, 10**8), st.integers(0, 10**8))
def test_an_age_that_would_delete_messages_is_refused(after: int, age: int, before: int) -> None:
    the_plan = changed(1, 9, age, replace(LIMITS, max_age=after), max_age=before * SECOND)
    text = reasons(the_plan)
    assert bool(text) == ((before == 0 or after < before) and age > after)
    if text:
        assert text.startswith("SHIPPER_STREAM_MAX_AGE=%s: stream logs-p3 " % readable("max_age", after * SECOND))
        remedy = text.partition("use ")[2].partition(" or more")[0]
        assert stream_limits({"SHIPPER_STREAM_MAX_AGE": remedy, "SHIPPER_STREAM_DUPLICATES": "1s"}).max_age >= age
        assert not reasons(the_plan, force=True)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"storage": "memory"}, "has storage memory, which cannot be changed"),
        ({"retention": "workqueue"}, "has retention workqueue, which cannot be changed"),
        ({"sealed": True}, "has sealed true, which cannot be changed"),
        ({"deny_purge": True}, "has deny_purge true, which cannot be changed"),
        ({"deny_delete": True}, "has deny_delete true, which cannot be changed"),
        ({"subjects": None, "mirror": {"name": "x"}}, "has mirror x, which cannot be changed"),
    ],
)
def test_what_the_server_never_changes_is_refused_with_force_too(config: dict[str, Any], says: str) -> None:
    for force in (False, True):
        text = reasons(changed(**config), force=force)
        assert text.startswith("SHIPPER_STREAM=logs: stream logs-p3 " + says)
        assert "nats stream rm logs-p3" in text


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"retention": "interest"}, "has retention interest"),
        ({"subjects": ["shipper.p4.>"]}, "is there with subjects shipper.p4.>, not shipper.p3.>"),
        ({"subjects": ["shipper.p3.>", "a\nb"]}, r"is there with subjects shipper.p3.>,a\nb, not shipper.p3.>"),
    ],
)
def test_a_stream_that_was_made_for_something_else_is_changed_by_force_only(config: Any, says: str) -> None:
    text = reasons(changed(**config))
    assert text.startswith("SHIPPER_STREAM=logs: stream logs-p3 " + says)
    assert "--force" in text
    assert not reasons(changed(**config), force=True)


def test_a_subject_that_another_stream_has_is_never_taken() -> None:
    for force in (False, True):
        text = reasons(plan(FLEET, LIMITS, 3, None), "everything", force=force)
        assert text.startswith("SHIPPER_SUBJECT=shipper: stream everything takes messages of shipper.p3.> already")
        assert "nats stream rm everything" in text
    assert "SHIPPER_STREAM=old meant?" in reasons(plan(FLEET, LIMITS, 3, None), "old-p3")
    assert "meant?" not in reasons(plan(FLEET, LIMITS, 3, None), "old-p33")


def test_of_many_refusals_the_hardest_is_told_and_the_others_are_counted() -> None:
    wanted = replace(LIMITS, max_bytes=2**20)
    plans = [changed(1, stored, wanted=wanted) for stored in (3 * 2**20, 7 * 2**20, 5 * 2**20)]
    many = [
        replace(reason, stream="logs-p%d" % number)
        for number, the_plan in enumerate(plans)
        for reason in refusals(FLEET, the_plan, [], NOW)
    ]
    text = str(refused(many, force=False))
    assert "use 7MiB or more" in text
    assert text.endswith("(and so with 2 other streams)")
    assert str(refused(many[:2], force=False)).endswith("(and so with 1 other stream)")
    assert refused(many, force=True) is None
    never = refusals(FLEET, changed(storage="memory"), [], NOW)
    assert "storage memory" in str(refused([*many, *never], force=False))
    assert "other stream" not in str(refused([*many, *never], force=True))


@given(st.integers(1, 2**62))
def test_a_size_is_said_exactly_and_as_the_settings_take_it(count: int) -> None:
    assume(count >= 2**20)
    text = size(count)
    assert len(text) <= len("%dB" % count)
    if len(text.rstrip("kKMGTiB")) <= 18:
        assert stream_limits({"SHIPPER_STREAM_MAX_BYTES": text}).max_bytes == count


@given(st.integers(1, 10**8))
def test_a_time_is_said_exactly_and_as_the_settings_take_it(seconds: int) -> None:
    text = readable("max_age", seconds * SECOND)
    assert stream_limits({"SHIPPER_STREAM_MAX_AGE": text, "SHIPPER_STREAM_DUPLICATES": "1s"}).max_age == seconds


@given(st.integers(0, 10**17))
def test_a_time_that_is_proposed_is_enough_and_not_twice_of_it(ns: int) -> None:
    told_ns = (
        stream_limits({"SHIPPER_STREAM_MAX_AGE": least_time(ns), "SHIPPER_STREAM_DUPLICATES": "1s"}).max_age * SECOND
    )
    assert ns <= told_ns <= 1.5 * ns + SECOND


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("max_bytes", 2**30, "1GiB"), ("max_bytes", 1536 * 2**20, "1536MiB"), ("max_bytes", -1, "unlimited"),
        ("max_bytes", 5 * 10**9, "5GB"), ("max_bytes", 1000415, "1000415B"), ("max_age", 0, "none"),
        ("max_age", 7 * 86400 * SECOND, "1w"), ("duplicate_window", 120 * SECOND, "2m"),
        ("duplicate_window", SECOND // 2, "0.5s"), ("allow_direct", False, "false"), ("subjects", ["a", "b"], "a,b"),
        ("subjects", [], "none"), ("description", "", "''"), ("description", "a\nb", r"a\nb"), ("num_replicas", 3, "3"),
    ],
)  # fmt: skip
def test_a_value_is_said_so_that_people_can_read_it(field: str, value: Any, text: str) -> None:
    assert readable(field, value) == text


def test_a_line_says_what_was_made_and_what_became_of_what() -> None:
    lines = told([plan(FLEET, LIMITS, 2, None), changed(max_bytes=2**20, num_replicas=3), changed()])
    assert lines == [
        "created logs-p2 on shipper.p2.>: max_bytes 1GiB, max_age none, num_replicas 1, duplicate_window 2m",
        "updated logs-p3: num_replicas: 3 -> 1, max_bytes: 1MiB -> 1GiB",
        "unchanged logs-p3",
    ]


def test_what_is_not_done_is_not_said_to_be() -> None:
    lines = told([plan(FLEET, LIMITS, 2, None), changed(num_replicas=3), changed()], dry_run=True)
    assert [line.partition(" logs-p")[0] for line in lines] == ["would be created", "would be updated", "unchanged"]


def test_many_unchanged_streams_share_a_line() -> None:
    fleet = FleetSettings(FLEET.broker, "shipper", "logs", 1000)
    plans = [plan(fleet, LIMITS, n, server_says(desired(fleet, LIMITS, n))) for n in fleet.numbers]
    plans[500] = plan(fleet, LIMITS, 500, None)
    lines = told(plans)
    assert [line.partition(" on ")[0] for line in lines] == ["created logs-p500", "unchanged: 999 of 1000 streams"]


@pytest.mark.parametrize("field", ["allow_rollup_hdrs", "allow_atomic", "allow_batched"])
def test_what_lets_a_message_do_more_than_be_stored_is_switched_off(field: str) -> None:
    the_plan = changed(**{field: True})
    assert the_plan.changes == {field: (True, False)}
    assert the_plan.config[field] is False
    assert not reasons(the_plan)


@pytest.mark.parametrize("field", ["allow_msg_ttl", "allow_msg_schedules", "allow_msg_counter"])
def test_a_stream_that_cannot_be_rid_of_it_is_refused(field: str) -> None:
    text = reasons(changed(**{field: True}), force=True)
    assert "stream logs-p3 has %s true, which cannot be changed: use another name, or delete it" % field in text


def test_servers_that_do_not_know_such_a_field_are_not_sent_it() -> None:
    assert not any(field.startswith("allow_") for field in changed().config if field != "allow_direct")
