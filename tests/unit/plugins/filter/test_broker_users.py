# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.filter.broker_users import FilterModule, broker_users

SECRET = "s" * 32


def fleet(**changes):
    """One host that ships, one that archives, and one that does both, with passwords."""
    common = {
        "shipper_partitions": 10,
        "shipper_subject": "shipper",
        "shipper_stream": "logs",
        "shipper_auth": "password",
        "shipper_secret": SECRET,
    }
    hosts = {name: dict(common) for name in ("web1", "a1", "a2")}
    for name, variables in changes.items():
        hosts[name].update(variables)
    return hosts


def users(hosts, **options):
    return {user["name"]: user for user in broker_users(hosts, ["web1", "a2"], ["a1", "a2"], **options)}


def test_each_host_is_a_user_and_so_is_the_operator():
    found = users(fleet())
    assert list(found) == ["web1", "a2", "a1", "shipper-admin"]
    assert found["web1"]["publish"] == [
        "shipper.p0.web1",
        "$JS.API.DIRECT.GET.logs-p0.shipper.p0.web1",
        "_INBOX.producer=web1.>",
    ]
    assert found["shipper-admin"]["publish"] == ["$JS.API.>", "_INBOX.admin.>"]
    assert len({user["password"] for user in found.values()}) == 4


def test_only_who_ships_and_does_not_archive_is_in_the_account_without_streams():
    assert {name: user["account"] for name, user in users(fleet()).items()} == {
        "web1": "SHIPPER_PRODUCERS",
        "a1": "SHIPPER",
        "a2": "SHIPPER",
        "shipper-admin": "SHIPPER",
    }


def test_who_has_two_roles_may_do_both():
    found = users(fleet())["a2"]
    assert {"_INBOX.producer=a2.>", "_INBOX.consumer=a2.>"} == set(found["subscribe"])
    assert any(subject.endswith(".a2") and subject.startswith("shipper.p") for subject in found["publish"])
    assert any(subject.startswith("$JS.API.CONSUMER.MSG.NEXT.logs-p") for subject in found["publish"])


def streams_of(user):
    start = "$JS.API.CONSUMER.MSG.NEXT.logs-p"
    return sorted(int(s[len(start) :].split(".")[0]) for s in user["publish"] if s.startswith(start))


def test_an_archive_host_has_its_partitions_and_what_it_has_not_released():
    before = users(fleet())
    assert sorted(streams_of(before["a1"]) + streams_of(before["a2"])) == list(range(10))
    foreign = streams_of(before["a2"])[0]
    rows = [
        {"partition": foreign, "group": "archive", "owner": "a1", "released": False},
        {"partition": foreign, "group": "second", "owner": "a1", "released": False},
        {"partition": streams_of(before["a2"])[1], "group": "archive", "owner": "a1", "released": True},
        {"partition": 3, "group": None, "owner": None, "released": False},
    ]
    after = users(fleet(), owners=rows)
    assert streams_of(after["a1"]) == sorted([*streams_of(before["a1"]), foreign])
    assert after["a2"] == before["a2"]


def test_an_identity_is_a_name_of_its_own_and_its_generation_changes_the_password():
    first = users(fleet(web1={"shipper_identity": "web1.example.net"}))["web1.example.net"]
    second = users(fleet(web1={"shipper_identity": "web1.example.net", "shipper_identity_generation": 2}))
    assert second["web1.example.net"]["password"] != first["password"]
    # The name that it ships under is another matter.
    assert first["subscribe"] == ["_INBOX.producer=web1.>"]


def test_with_certificates_there_are_no_passwords():
    hosts = fleet()
    for variables in hosts.values():
        variables.update(shipper_auth="mtls", shipper_tls="private")
        del variables["shipper_secret"]
    assert len(users(hosts)) == 4
    assert not any("password" in user for user in users(hosts).values())


def test_the_variables_of_a_role_win():
    found = users(fleet(web1={"producer_hostname": "x.y", "producer_subject": "mine", "producer_stream": ""}))
    (own,) = [subject for subject in found["web1"]["publish"] if subject.startswith("mine.p")]
    assert own.endswith(".x.y")
    assert not any("DIRECT" in subject for subject in found["web1"]["publish"])


def test_without_authorization_there_are_no_users():
    hosts = fleet()
    for variables in hosts.values():
        del variables["shipper_auth"]
    assert users(hosts) == {}
    assert broker_users({}) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"web1": {"shipper_secret": "short-word"}}, "shipper_secret is shorter than 32 characters for web1: "),
        ({"web1": {"shipper_subject": ""}}, "shipper_subject is not set for web1: name what all subjects begin with"),
    ],
)
def test_a_fleet_that_cannot_work_has_no_users(changes, text):
    with pytest.raises(AnsibleFilterError) as error:
        users(fleet(**changes))
    assert text in str(error.value)
    assert "short-word" not in str(error.value)


def test_a_host_that_the_inventory_does_not_have_is_refused():
    with pytest.raises(AnsibleFilterError) as error:
        broker_users(fleet(), ["web9"])
    assert str(error.value) == "broker_users: the inventory has no host web9"


def test_the_filter_is_found_by_its_name():
    assert FilterModule().filters() == {"broker_users": broker_users}
