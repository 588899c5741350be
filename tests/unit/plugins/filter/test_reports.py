# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters fleet_report, plan_change and misspelt: what they take and refuse; what they say is tested elsewhere."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.filter import fleet_report, misspelt, plan_change

STATE = {"partitions": [], "silent": [], "unexpected": []}
HOSTS = {name: {"shipper_partitions": 4} for name in ("web1", "web2", "a1", "a2")}


def test_a_report_has_lines_and_problems():
    found = fleet_report.fleet_report({**STATE, "silent": [{"host": "web1", "last_seen_seconds": 60.0}]}, {}, "30s")
    assert found["problems"] == ["nothing has come for 30s from web1"]
    assert found["lines"][-1] == found["problems"][0]


@pytest.mark.parametrize("state", [None, "x", {}, {"failed": True}])
def test_what_the_module_did_not_return_is_refused(state):
    with pytest.raises(AnsibleFilterError) as error:
        fleet_report.fleet_report(state)
    assert str(error.value) == "fleet_report: this is nothing that the module fleet_state returned"


def test_a_span_that_is_none_is_refused():
    with pytest.raises(AnsibleFilterError, match="silent_after=soon: use a whole number and one of"):
        fleet_report.fleet_report(STATE, {}, "soon")


def test_a_change_has_names_lines_and_a_page():
    found = plan_change.plan_change(HOSTS, ["web1", "web2"], ["a1", "a2"], 1, ["a1"])
    assert found["problems"] == []
    assert set(found["moving_hosts"]) <= {"web1", "web2"}
    assert {row["then"] for row in found["moving_partitions"]} <= {"a1"}
    assert found["page"].startswith("<!DOCTYPE html>") and found["lines"]


def test_a_change_that_cannot_be_is_a_problem():
    found = plan_change.plan_change(HOSTS, ["web1"], ["a1"], "ten")
    assert found == {
        "problems": ["shipper_new_partitions=ten: use a whole number, 0 or more"],
        "lines": [],
        "page": "",
        "moving_hosts": [],
        "moving_partitions": [],
    }


def test_hosts_that_are_not_there_and_names_that_are_no_list_are_refused():
    with pytest.raises(AnsibleFilterError, match="plan_change: the inventory has no host web9"):
        plan_change.plan_change(HOSTS, ["web9"], ["a1"])
    with pytest.raises(AnsibleFilterError, match="plan_change: shipper_new_consumers=a1,a2: use a list of names"):
        plan_change.plan_change(HOSTS, ["web1"], ["a1"], None, "a1,a2")


def test_names_that_are_nearly_variables_are_told_others_left_alone():
    names = ["shipper_asert", "shipper_serail", "shipper_color", "web_port", "producer_files"]
    hosts = {"web1": {}, "web2": {"producer_flies": []}, "web3": {"producer_file": []}}
    assert misspelt.misspelt(hosts, ["web1", "web2"], names) == [
        "producer_flies is not a variable of this collection: write producer_files",
        "shipper_asert is not a variable of this collection: write shipper_assert",
        "shipper_serail is not a variable of this collection: write shipper_serial",
    ]
    with pytest.raises(AnsibleFilterError, match="is no list of names"):
        misspelt.misspelt(hosts, ["web1"], "shipper_asert")


def test_values_that_a_variable_cannot_have_are_told_for_each_host():
    hosts = {"web1": {"producer_service_manager": "systemd"}, "web2": {"producer_service_manager": "supervisr"}}
    assert misspelt.misspelt(hosts, list(hosts)) == [
        "producer_service_manager=supervisr for web2: use systemd or supervisor"
    ]


@pytest.mark.parametrize(
    ("module", "name"), [(fleet_report, "fleet_report"), (plan_change, "plan_change"), (misspelt, "misspelt")]
)
def test_each_filter_is_found_by_its_name(module, name):
    assert list(module.FilterModule().filters()) == [name]
