# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what, as lists; tests/integration/test_permissions.py has real servers enforce them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from shipper_runtime.permissions import accounts, admin, consumer, inbox_prefix, password, producer
from tests.support import nats_server_binary

HOSTS = st.from_regex(r"[a-z0-9_-]{1,8}(\.[a-z0-9_-]{1,8}){0,3}", fullmatch=True)


def test_a_producer_may_do_three_things() -> None:
    allowed = producer("shipper", 10, "web1.example.net", "logs")
    assert allowed.publish == (
        "shipper.p5.web1.example.net",
        "$JS.API.DIRECT.GET.logs-p5.shipper.p5.web1.example.net",
        "_INBOX.producer=web1=example=net.>",
    )
    assert allowed.subscribe == ("_INBOX.producer=web1=example=net.>",)
    assert producer("shipper", 10, "foo", None).publish == ("shipper.p3.foo", "_INBOX.producer=foo.>")


def test_a_consumer_in_core_mode_may_only_listen() -> None:
    allowed = consumer("shipper", [0, 3], "a1", None, "archive")
    assert allowed.publish == ("_INBOX.consumer=a1.>",)
    assert allowed.subscribe == ("shipper.p0.>", "shipper.p3.>", "_INBOX.consumer=a1.>")


def test_a_consumer_of_streams_may_subscribe_to_nothing_but_its_inbox() -> None:
    allowed = consumer("shipper", [0, 3], "a1", "logs", "archive")
    assert allowed.subscribe == ("_INBOX.consumer=a1.>",)
    assert "$JS.API.CONSUMER.MSG.NEXT.logs-p3.archive" in allowed.publish
    streams = {word for subject in allowed.publish for word in re.findall(r"logs-p\d+", subject)}
    assert streams == {"logs-p0", "logs-p3"}
    assert not any(subject.startswith("$JS.") and subject.endswith(">") for subject in allowed.publish)


def test_two_roles_are_both_without_anything_twice() -> None:
    both = producer("shipper", 1, "a1", "logs") | consumer("shipper", [0], "a1", "logs", "archive")
    assert len(set(both.publish)) == len(both.publish)
    assert {"_INBOX.producer=a1.>", "_INBOX.consumer=a1.>"} == set(both.subscribe)


def test_an_admin_reads_through_jetstream_alone() -> None:
    assert admin().publish == ("$JS.API.>", "_INBOX.admin.>")
    assert admin().subscribe == ("_INBOX.admin.>",)


@given(HOSTS, HOSTS, st.integers(0, 5))
def test_no_host_may_do_what_is_anothers(one: str, other: str, partitions: int) -> None:
    if one != other:
        mine, theirs = (producer("shipper", partitions, host, "logs") for host in (one, other))
        assert not {*mine.publish, *mine.subscribe} & {*theirs.publish, *theirs.subscribe}
        assert not (inbox_prefix("producer", other) + ".x").startswith(inbox_prefix("producer", one) + ".")


def _matches(pattern: str, subject: str) -> bool:
    wanted, tokens = pattern.split("."), subject.split(".")
    return len(wanted) == len(tokens) and all(a in ("*", b) for a, b in zip(wanted, tokens))


def test_an_acknowledgement_is_of_the_own_stream_in_every_form_and_of_no_other() -> None:
    allowed = [each for each in consumer("shipper", [0], "a1", "logs", "7").publish if each.startswith("$JS.ACK")]
    numbers = "1.2.3.4.5"
    for subject in ("logs-p0.7." + numbers, "_.hash.logs-p0.7." + numbers, "hub.hash.logs-p0.7." + numbers + ".xyz"):
        assert any(_matches(each, "$JS.ACK." + subject) for each in allowed), subject
    # What a server would take for one of stream logs-p5, whose durable is called archive.
    for subject in ("logs-p5.archive.logs-p0.7.3.4.5", "logs-p5.archive." + numbers, "_.hash.logs-p5.7." + numbers):
        assert not any(_matches(each, "$JS.ACK." + subject) for each in allowed), subject


def test_a_password_is_of_one_secret_one_identity_and_one_generation() -> None:
    words = {
        password(secret, identity, generation)
        for secret in ("s" * 32, "t" * 32)
        for identity in ("web1", "web2", "web1:2")
        for generation in (1, 2, 3)
    }
    assert len(words) == 2 * 9 - 2, "web1 in generation 2 and the impossible name web1:2 in generation 1 coincide"
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", word) for word in words)
    assert password("s" * 32, "web1") == "6MpE8gUoQAlwYZlA5jPzkNq0O1zzNOpkZ8AiA8XPK-o"


def test_who_only_ships_is_in_an_account_without_jetstream() -> None:
    users = [
        {"name": "web1", "account": "SHIPPER_PRODUCERS", "password": "p", "publish": ["a"], "subscribe": ["b"]},
        {"name": "a1", "account": "SHIPPER", "publish": ["c"], "subscribe": []},
    ]
    text = accounts(users, ["shipper"])
    mine, theirs = text.split("  SHIPPER_PRODUCERS {")
    assert "jetstream: enabled" in mine
    assert "jetstream" not in theirs
    assert json.dumps({"user": "a1", "permissions": {"publish": ["c"], "subscribe": []}}) in mine
    assert '"user": "web1", "password": "p"' in theirs
    assert "no_auth_user" not in text
    assert "no_auth_user" in accounts([], ["shipper"])


def test_nats_server_reads_what_is_not_ascii(tmp_path: Path) -> None:
    users = [{"name": "web1", "account": "SHIPPER_PRODUCERS", "publish": ["l\u00f6gs.>"], "subscribe": []}]
    (tmp_path / "nats.conf").write_text(accounts(users, ["l\u00f6gs"]), encoding="utf-8")
    command = [nats_server_binary(), "-t", "-c", str(tmp_path / "nats.conf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
