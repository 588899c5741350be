# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.filter.fleet_plan import FilterModule, fleet_plan
from ansible_collections.logfleet.shipper.shipper_runtime import values


def plan(hosts, producers=(), consumers=None, **options):
    return fleet_plan(hosts, list(producers), consumers, **options)


def fleet(**changes):
    """Two producers and two consumers of ten partitions, with further variables for some."""
    hosts = {name: {"shipper_partitions": 10} for name in ("web1", "web2", "a1", "a2")}
    for name, variables in changes.items():
        hosts.setdefault(name, {}).update(variables)
    return hosts


def problems(**changes):
    return plan(fleet(**changes), ["web1", "web2"], ["a1", "a2"])["problems"]


def test_a_fleet_that_agrees_has_no_problem_and_one_reader_for_each_partition():
    result = plan(fleet(), ["web1", "web2"], ["a1", "a2"])
    assert result["problems"] == []
    assert result["partitions"] == 10
    assert result["producers"] == ["web1", "web2"]
    assert sorted(number for share in result["read_partitions"].values() for number in share) == list(range(10))


def test_every_group_of_consumers_reads_every_partition():
    hosts = fleet(a2={"shipper_group": "second"})
    result = plan(hosts, ["web1"], ["a1", "a2"])
    assert result["read_partitions"] == {"a1": list(range(10)), "a2": list(range(10))}


def test_hosts_that_disagree_about_the_number_of_partitions_are_named():
    assert problems(web2={"shipper_partitions": 20}) == [
        "the fleet disagrees about the number of partitions: shipper_partitions is 10 for web1, a1 and a2, "
        "shipper_partitions is 20 for web2; give all hosts the same shipper_partitions, such as in group_vars/all"
    ]


def test_a_host_that_does_not_know_the_number_of_partitions_disagrees():
    hosts = fleet()
    del hosts["web2"]["shipper_partitions"]
    assert plan(hosts, ["web1", "web2"], ["a1", "a2"])["problems"] == [
        "the fleet disagrees about the number of partitions: shipper_partitions is 10 for web1, a1 and a2, "
        "shipper_partitions is not set for web2; give all hosts the same shipper_partitions, such as in group_vars/all"
    ]


def test_the_variable_of_a_role_is_named_where_it_is_the_one_that_counts():
    (problem,) = problems(web2={"producer_partitions": 12})
    assert "producer_partitions is 12 for web2" in problem


def test_hosts_outside_of_the_play_count_where_the_fleet_is_not_known():
    hosts = fleet(other={"shipper_partitions": 5}, stranger={"x": 1})
    assert plan(hosts, ["web1"], ["a1"], complete=True)["problems"] == []
    (problem,) = plan(hosts, ["web1"], ["a1"], complete=False)["problems"]
    assert "shipper_partitions is 5 for other" in problem


@pytest.mark.parametrize("value", ["ten", -1, 1.5, True, [10], ""])
def test_a_number_of_partitions_that_is_none_is_named(value):
    assert "shipper_partitions=%s for web2: use a whole number, 0 or more" % (value,) in problems(
        web2={"shipper_partitions": value}
    )


def test_the_command_line_gives_numbers_as_text():
    hosts = {name: {"shipper_partitions": "10"} for name in ("web1", "a1")}
    assert plan(hosts, ["web1"], ["a1"])["read_partitions"] == {"a1": list(range(10))}


def test_a_fleet_whose_inventory_is_silent_takes_the_number_that_is_given():
    assert plan({"a1": {}}, [], ["a1"], partitions=3)["read_partitions"] == {"a1": [0, 1, 2]}
    assert plan({"a1": {}}, [], ["a1"])["read_partitions"] == {"a1": [0]}


def test_who_names_partitions_reads_those_and_the_others_share_the_rest():
    hosts = fleet(a2={"consumer_read_partitions": [3, 9]})
    result = plan(hosts, ["web1"], ["a1", "a2"])
    assert result["read_partitions"] == {"a1": [0, 1, 2, 4, 5, 6, 7, 8], "a2": [3, 9]}


def test_a_partition_without_a_reader_is_named():
    assert problems(
        a1={"consumer_read_partitions": [0, 1, 2, 3]}, a2={"consumer_read_partitions": [5, 6, 7, 8, 9]}
    ) == ["partition 4 has no reader in the group archive: add it to consumer_read_partitions of one of a1 and a2"]


def test_a_partition_with_two_readers_is_named():
    assert problems(
        a1={"consumer_read_partitions": list(range(6))}, a2={"consumer_read_partitions": list(range(5, 10))}
    ) == [
        "partition 5 has more than one reader in the group archive, a1 and a2: take it from consumer_read_partitions "
        "of all but one"
    ]


def test_a_fleet_without_consumers_is_refused_where_it_is_asked_who_reads():
    assert plan(fleet(), ["web1"], [])["problems"] == [
        "there is no consumer, so nobody reads partitions 0 to 9: add the hosts that archive, or use the role producer "
        "in a playbook of your own if others do"
    ]
    assert plan(fleet(), ["web1"])["problems"] == []


def test_a_share_is_not_computed_from_a_part_of_the_consumers():
    assert plan(fleet(), [], ["a1"], limited=True)["problems"] == [
        "consumer_hosts is empty and the run is limited, so the share of a1 cannot be computed: name all hosts that "
        "archive in consumer_hosts"
    ]
    hosts = fleet(a1={"consumer_read_partitions": list(range(10))})
    assert plan(hosts, [], ["a1"], limited=True)["problems"] == []


@pytest.mark.parametrize("value", [[10], ["x"], "0-9", [-1], [True]])
def test_partitions_that_are_not_there_are_named(value):
    assert (
        "consumer_read_partitions=%s for a1: use a list of whole numbers from 0 to 9, for shipper_partitions is 10"
        % (value,)
        in problems(a1={"consumer_read_partitions": value})
    )


def test_a_name_that_cannot_be_part_of_a_subject_is_named():
    hosts = fleet(**{"web 3": {"shipper_partitions": 10}})
    assert plan(hosts, ["web 3"], ["a1"])["problems"] == [
        "the host name web 3 cannot be part of a subject: use 1 to 253 ASCII letters, digits, - _ and ., without empty "
        "labels, in producer_hostname"
    ]
    assert problems(web1={"producer_hostname": "web..1"}) == [
        "producer_hostname=web..1 for web1 cannot be part of a subject: use 1 to 253 ASCII letters, digits, - _ and "
        "., without empty labels, in producer_hostname"
    ]


@pytest.mark.parametrize(("given", "name"), [(None, "web1"), ("", "web1"), (1234, "1234")])
def test_a_name_that_is_none_is_the_inventorys_and_a_number_is_a_name(given, name):
    hosts = fleet(web1={"producer_hostname": given})
    assert plan(hosts, ["web1"], ["a1"])["hostnames"] == {"web1": name}
    assert problems(web1={"producer_hostname": given}) == []


def test_two_hosts_with_one_name_are_named():
    assert problems(web2={"producer_hostname": "web1"}) == [
        "web1 and web2 both ship as web1: give them different names in producer_hostname"
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("producer_flies", "producer_files"),
        ("producer_file", "producer_files"),
        ("shipper_partitons", "shipper_partitions"),
        ("shiper_partitions", "shipper_partitions"),
        ("shipper_natsurl", "shipper_nats_url"),
        ("consumer_diretcory", "consumer_directory"),
        ("consumers_output", "consumer_output"),
        ("producers_files", "producer_files"),
    ],
)
def test_a_misspelt_variable_is_named_with_what_was_meant(name, meant):
    assert problems(web1={name: "x"}) == ["%s is not a variable of this collection: write %s" % (name, meant)]


@pytest.mark.parametrize(
    "name",
    [
        "producer_of_the_month",
        "producer_owner",
        "producer_contact",
        "consumer_price_index",
        "consumer_count",
        "shipper_port",
        "shipper_address",
        "files",
        "my_producer_flies",
        "producer",
        "nats_url",
        "ansible_user",
        "broker_url",
    ],
)
def test_the_operators_own_variables_are_left_alone(name):
    assert problems(web1={name: "x"}) == []


def test_names_that_only_the_playbook_knows_are_looked_at_too():
    result = plan(fleet(), ["web1"], ["a1"], names=["producer_flies"])
    assert result["problems"] == ["producer_flies is not a variable of this collection: write producer_files"]


def test_a_host_that_the_inventory_does_not_have_is_refused():
    with pytest.raises(AnsibleFilterError) as error:
        plan(fleet(), ["web9"])
    assert str(error.value) == "fleet_plan: the inventory has no host web9"


def guarded(everybody, **changes):
    """What is wrong with a fleet all of whose hosts have these variables, and some others too."""
    hosts = fleet()
    for variables in hosts.values():
        variables.update(everybody)
    for name, variables in changes.items():
        hosts[name].update(variables)
    return plan(hosts, ["web1", "web2"], ["a1", "a2"])["problems"]


PASSWORDS = {"shipper_auth": "password", "shipper_secret": "secret-word-" * 3}
CERTIFICATES = {"shipper_auth": "mtls", "shipper_tls": "private"}


@pytest.mark.parametrize("everybody", [PASSWORDS, CERTIFICATES, {"shipper_tls": "provided"}, {"shipper_auth": "none"}])
def test_a_fleet_whose_hosts_have_identities_has_no_problem(everybody):
    assert guarded(everybody) == []


@pytest.mark.parametrize(
    ("everybody", "changes", "problem"),
    [
        (
            {"shipper_auth": "mtls"},
            {},
            "shipper_auth=mtls needs certificates, and shipper_tls is none: use private or provided",
        ),
        (
            {"shipper_auth": "kerberos"},
            {},
            "shipper_auth=kerberos for web1, web2, a1 and 1 more: use none, password or mtls",
        ),
        ({}, {"web1": {"shipper_tls": "yes"}}, "shipper_tls=yes for web1: use none, private or provided"),
        (
            {"shipper_tls": "private"},
            {"a2": {"shipper_tls": "none"}},
            "the fleet disagrees about shipper_tls: none for a2, private for web1, web2 and a1; give all hosts the "
            "same, such as in group_vars/all",
        ),
        (
            {"shipper_auth": "password"},
            {},
            "shipper_secret is not set for web1, web2, a1 and 1 more, and shipper_auth is password: put 32 random "
            "characters or more into a vault, for all hosts",
        ),
        (
            PASSWORDS,
            {"web2": {"shipper_secret": "secret-word"}},
            "shipper_secret is shorter than 32 characters for web2: put 32 random characters or more into a vault, for "
            "all hosts",
        ),
        (
            PASSWORDS,
            {"web2": {"shipper_secret": "secret-word-" * 4}},
            "the fleet has more than one shipper_secret: put 32 random characters or more into a vault, for all hosts",
        ),
        (
            PASSWORDS,
            {"web2": {"shipper_identity": "a1"}},
            "web2 and a1 both have the identity a1: give them different names in shipper_identity",
        ),
        (
            CERTIFICATES,
            {"web2": {"shipper_identity": "shipper-admin"}},
            "the identity shipper-admin of web2 is the operator's: give it another shipper_identity",
        ),
        (
            PASSWORDS,
            {"web2": {"shipper_identity": "web 2"}},
            "the identity web 2 of web2 cannot be a user's name: use 1 to 253 ASCII letters, digits, - _ and ., "
            "without empty labels, in shipper_identity",
        ),
        (
            PASSWORDS,
            {"web2": {"shipper_identity_generation": "new"}},
            "shipper_identity_generation=new for web2: use a whole number, 1 or more",
        ),
        (
            CERTIFICATES,
            {"a1": {"consumer_plain": "accept"}},
            "consumer_plain=accept for a1: lines without headers may be anybody's, and shipper_auth is mtls; use "
            "reject, or take it out",
        ),
    ],
)
def test_what_the_brokers_could_not_tell_apart_is_named(everybody, changes, problem):
    found = guarded(everybody, **changes)
    assert problem in found
    assert "secret-word" not in " ".join(found)


def test_a_word_that_says_nothing_of_plain_lines_is_named():
    assert guarded({}, a1={"consumer_plain": "acept"}) == ["consumer_plain=acept for a1: use accept or reject"]


def test_plain_lines_may_be_taken_where_nobody_is_told_apart():
    assert guarded({}, a1={"consumer_plain": "accept"}) == []


def test_an_archive_host_has_a_name_that_can_be_part_of_a_subject():
    hosts = fleet(**{"a 3": {"shipper_partitions": 10}})
    assert plan(hosts, ["web1"], ["a 3"])["problems"] == [
        "the host name a 3 cannot be part of a subject: use 1 to 253 ASCII letters, digits, - _ and ., without empty "
        "labels, in the inventory"
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("shipper_auht", "shipper_auth"),
        ("shipper_secrets", "shipper_secret"),
        ("shipper_identiy", "shipper_identity"),
        ("shipper_identity_generations", "shipper_identity_generation"),
    ],
)
def test_the_variables_of_identities_are_known_by_their_names(name, meant):
    assert problems(web1={name: "x"}) == ["%s is not a variable of this collection: write %s" % (name, meant)]


def test_the_filter_is_found_by_its_name():
    assert FilterModule().filters() == {"fleet_plan": fleet_plan}


def test_values_that_a_variable_cannot_have_are_named_as_they_were_written():
    found = problems(
        web1={"producer_start": "begin", "producer_read_all": "maybe"},
        web2={"producer_start": "begin", "producer_check_seconds": "soon"},
        a1={"shipper_service_manager": "sytemd", "consumer_workers": "two"},
        a2={"shipper_serial": [1, "ten"]},
    )
    assert found == [
        "consumer_workers=two for a1: use a whole number, 1 or more",
        "producer_check_seconds=soon for web2: use a whole number, 0 or more",
        "producer_read_all=maybe for web1: use true or false",
        "producer_start=begin for web1 and web2: use beginning or end",
        "shipper_serial=[1, 'ten'] for a2: use a number of hosts, a percentage, or a list of these, such as "
        "[1, '25%', '100%']",
        "shipper_service_manager=sytemd for a1: use systemd or supervisor",
    ]


def test_values_that_it_can_have_are_not():
    assert not problems(
        web1={"producer_start": "end", "producer_read_all": "yes", "producer_check_seconds": "0"},
        a1={"shipper_serial": "25%", "consumer_workers": 2, "consumer_plain": ""},
        a2={"shipper_serial": [1, "50%"], "shipper_assert": False},
    )


def test_the_variables_of_brokers_are_looked_at_and_they_need_not_know_the_partitions():
    hosts = fleet()
    hosts["b1"] = {"producer_flies": []}
    found = plan(hosts, ["web1"], ["a1"], brokers=["b1"])["problems"]
    assert found == ["producer_flies is not a variable of this collection: write producer_files"]


def test_producers_are_known_by_the_names_that_they_ship_as():
    hosts = fleet(web2={"producer_hostname": "other"})
    assert plan(hosts, ["web1", "web2"], ["a1"])["hostnames"] == {"web1": "web1", "web2": "other"}


def test_of_a_fleet_that_cannot_work_nobody_has_a_share():
    result = plan(fleet(web1={"producer_flies": []}), ["web1"], ["a1"])
    assert result["problems"]
    assert (result["producers"], result["read_partitions"]) == ([], {})


def test_brokers_that_make_streams_must_know_the_partitions():
    hosts = fleet(b1={"shipper_stream": "logs"})
    (problem,) = plan(hosts, ["web1"], ["a1"], brokers=["b1"])["problems"]
    assert problem.startswith("the fleet disagrees about the number of partitions: ")
    assert "shipper_partitions is not set for b1" in problem


SECRET = "0123456789abcdef0123456789abcdef"


def test_brokers_must_agree_about_who_is_let_in():
    guarded = {"shipper_auth": "password", "shipper_secret": SECRET}
    hosts = fleet(web1=guarded, a1=guarded, b1={"shipper_partitions": 10})
    (problem,) = plan(hosts, ["web1"], ["a1"], brokers=["b1"])["problems"]
    assert problem.startswith("the fleet disagrees about shipper_auth: none for b1, password for web1 and a1; ")
    hosts["b1"].update(guarded, shipper_auth="pasword")
    assert (
        "shipper_auth=pasword for b1: use none, password or mtls"
        in plan(hosts, ["web1"], ["a1"], brokers=["b1"])["problems"]
    )
    hosts["b1"].update(shipper_auth="none", broker_auth="password")
    assert plan(hosts, ["web1"], ["a1"], brokers=["b1"])["problems"] == []


def test_brokers_with_nobody_to_let_in_are_not_left_open():
    hosts = {"b1": {"shipper_auth": "password", "shipper_secret": SECRET}}
    assert plan(hosts, [], [], brokers=["b1"])["problems"] == [
        "shipper_auth is password, and there is no host that ships or archives: add them, or leave shipper_auth out "
        "until there are"
    ]


@pytest.mark.parametrize("nothing", [None, ""])
def test_an_empty_group_is_none(nothing):
    hosts = fleet(a1={"shipper_group": "east"}, a2={"shipper_group": "east", "consumer_group": nothing})
    result = plan(hosts, ["web1"], ["a1", "a2"])
    assert sorted(number for share in result["read_partitions"].values() for number in share) == list(range(10))


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"consumer_workers": 0}, "consumer_workers=0 for a1: use a whole number, 1 or more"),
        ({"shipper_certificate_days": 0}, "shipper_certificate_days=0 for a1: use a whole number, 1 or more"),
        ({"consumer_workers": -1}, "consumer_workers=-1 for a1: use a whole number, 1 or more"),
        ({"shipper_tls": False}, "shipper_tls=False for a1: use none, private or provided"),
        ({"producer_files": "/var/log/a"}, "producer_files=/var/log/a for a1: use a list"),
        ({"producer_files": [""], "consumer_workers": 0}, "consumer_workers=0 for a1: use a whole number, 1 or more"),
        ({"producer_files": []}, "producer_files=[] for a1: name at least one"),
        ({"shipper_compress": True}, "shipper_compress=True for a1: use none, gzip, 1, 2, 3, 4, 5, 6, 7, 8 or 9"),
        ({"shipper_tsl": "private"}, "shipper_tsl is not a variable of this collection: write shipper_tls"),
    ],
)
def test_a_value_that_is_wrong_is_told(variables, problem):
    assert problem in problems(a1=variables)


@pytest.mark.parametrize("level", [6, "6", "gzip", "none"])
def test_a_level_may_be_a_number_or_a_word(level):
    assert problems(a1={"shipper_compress": level}) == []


def test_a_template_that_makes_a_list_is_left_to_the_task_that_needs_it():
    assert problems(a1={"broker_users": "{{ hostvars | logfleet.shipper.broker_users(producers=[]) }}"}) == []


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"consumer_rotate": "daily"}, "consumer_rotate=daily for a1: use a whole number above 0 and one of s, m,"),
        ({"consumer_max_age": 7}, "consumer_max_age=7 for a1: use a whole number above 0 and one of s, m, h, d, w"),
        ({"shipper_jitter": "soon"}, "shipper_jitter=soon for a1: use a whole number above 0"),
        ({"producer_rate": "fast"}, "producer_rate=fast for a1: use a whole number above 0 and one of KiB, MiB"),
        ({"consumer_metrics": "9464"}, "consumer_metrics=9464 for a1: use host:port"),
        ({"shipper_subject": "ship per"}, "shipper_subject=ship per for a1: use tokens joined by dots"),
        ({"producer_subject": "logs.>"}, "producer_subject=logs.> for a1: use tokens joined by dots"),
        ({"shipper_stream": "a.b"}, "shipper_stream=a.b for a1: use 1 to 200 letters, digits, - and _"),
        ({"shipper_group": "a b"}, "shipper_group=a b for a1: use 1 to 64 letters, digits, - and _"),
        ({"shipper_nats_url": "nats://u:secret-word@h:0"}, "shipper_nats_url=nats://"),
        ({"shipper_stream_max_bytes": "1"}, "shipper_stream_max_bytes=1 for a1: "),
        ({"shipper_stream_replicas": 7}, "shipper_stream_replicas=7 for a1: use 1 to 5"),
        ({"shipper_stream_max_age": "x"}, "shipper_stream_max_age=x for a1: use a whole number above 0"),
        ({"shipper_stream_duplicates": "0"}, "shipper_stream_duplicates=0 for a1: use a whole number above 0"),
        (
            {"shipper_stream_max_age": "1m"},
            "shipper_stream_duplicates=2m for a1: the broker cannot know a message for longer than it is kept; use "
            "shipper_stream_max_age or less",
        ),
        ({"consumer_output": "{source}-%d"}, "consumer_output={source}-%d for a1: names would not sort by time"),
        ({"consumer_rotate": "1h"}, "consumer_rotate=1h for a1: periods shorter than "),
        ({"consumer_directory": "$HOME/logs"}, "consumer_directory=$HOME/logs for a1: use a path that begins with /"),
        ({"producer_files": ["/a", "b.log"]}, "producer_files=b.log for a1: use a path that begins with /"),
        ({"producer_files": [None]}, "producer_files= for a1: use a path that begins with /"),
        ({"producer_files": ["/a:b"]}, "producer_files=/a:b for a1: a path cannot hold a colon"),
        ({"broker_port": 99999}, "broker_port=99999 for a1: use a port from 1 to 65535"),
        ({"broker_monitoring": "8222"}, "broker_monitoring=8222 for a1: use host:port"),
    ],
)
def test_what_the_program_would_refuse_later_is_refused_now_and_no_secret_is_shown(variables, problem):
    (found,) = problems(a1=variables)
    assert found.startswith(problem)
    assert "secret-word" not in found
    assert "SHIPPER_" not in found


def test_what_the_program_takes_is_fine():
    variables = {
        "consumer_rotate": "1h",
        "consumer_output": "%Y%m%d%H/{source}",
        "shipper_stream_max_age": "0",
        "shipper_stream_replicas": "3",
        "shipper_jitter": "",
        "producer_rate": None,
        "consumer_directory": "{{ somewhere_else }}/logs",
        "shipper_nats_url": "tls://n1.example.net:4222,n2",
        "producer_files": ["/var/log/*.log"],
        "broker_port": "4222",
    }
    assert problems(a1=variables) == []


def test_a_url_with_a_user_is_refused_where_every_host_has_its_own():
    secret = {"shipper_auth": "password", "shipper_secret": SECRET, "shipper_nats_url": "nats://u:secret-word@n1"}
    hosts = {name: {"shipper_partitions": 10, **secret} for name in ("web1", "a1")}
    (found,) = plan(hosts, ["web1"], ["a1"])["problems"]
    assert found.startswith("shipper_nats_url=") and "it holds a user or a token already" in found
    assert "secret-word" not in found


def test_what_hosts_need_and_nobody_has_told_them_is_named():
    common = {"shipper_partitions": 10, "shipper_subject": "shipper"}
    hosts = {
        "web1": {**common, "producer_files": ["/a"], "producer_nats_url": "n1"},
        "web2": {**common, "producer_files": None},
        "a1": common,
    }
    assert plan(hosts, ["web1", "web2"], ["a1"])["problems"] == []
    asked = {"producers": ["web1", "web2"], "consumers": ["a1"], "told": True}
    assert plan(hosts, **asked)["problems"] == [
        "producer_files is not set for web2: name the files to ship",
        "shipper_nats_url is not set for web2 and a1: name the servers, such as nats://nats1.example.net:4222",
    ]
    # The play says it for all.
    del hosts["web1"]["producer_nats_url"]
    assert plan(hosts, **asked, names=["shipper_nats_url"])["problems"] == [
        "producer_files is not set for web2: name the files to ship",
    ]


def test_two_brokers_are_less_than_one():
    hosts = fleet(b1={}, b2={}, b3={})
    assert plan(hosts, ["web1"], ["a1"], brokers=["b1", "b2", "b3"])["problems"] == []
    assert plan(hosts, ["web1"], ["a1"], brokers=["b1", "b2"])["problems"] == [
        "there are two brokers, b1 and b2, and neither can go on when the other is away: use one, or three"
    ]


def test_what_all_hosts_have_alike_is_looked_at_once(monkeypatch):
    looked = []
    look = values.problem_together
    monkeypatch.setattr(values, "problem_together", lambda *given: looked.append(given) or look(*given))
    hosts = fleet(**{name: {"consumer_rotate": "1h"} for name in ("web1", "web2", "a1", "a2")})
    assert len(plan(hosts, ["web1", "web2"], ["a1", "a2"])["problems"]) == 1
    assert len(looked) == 1
