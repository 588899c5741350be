# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook site with all that the collection has: a broker, passwords, a CA of its own; and how little it takes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Fleet
from test_broker import SECRET, free_ports

from tests.support import nats_server_binary, wait_for

# What the specification of this collection allows, for a host of a rollout with nothing else asked for.
MOST = {"producer": 12, "consumer": 14}
CHECK = "logfleet.shipper.runtime : See that the service works"


@pytest.fixture
def guarded(fleet: Fleet) -> Fleet:
    """A fleet with a broker of its own, where everybody has an identity."""
    ports = free_ports(3)
    fleet.brokers = {
        "b1": {
            "broker_port": ports[0],
            "broker_cluster_port": ports[1],
            "broker_monitoring": "127.0.0.1:%d" % ports[2],
        }
    }
    fleet.producers = {"web1.example.net": {}, "web2.example.net": {}}
    fleet.vars.update(
        shipper_nats_url="tls://127.0.0.1:%d" % ports[0],
        shipper_auth="password",
        shipper_tls="private",
        shipper_secret=SECRET,
        shipper_pki=str(fleet.folder / "pki"),
        shipper_partitions=2,
        shipper_stream="logs",
        shipper_stream_max_bytes="8MiB",
        broker_root=str(fleet.folder / "{{ inventory_hostname }}"),
        broker_install="present",
        broker_binary=nats_server_binary(),
        broker_address="127.0.0.1",
        broker_listen="127.0.0.1",
        producer_check_seconds=30,
    )
    for name in fleet.producers:
        log = fleet.host(name) / "log/app.log"
        log.parent.mkdir(parents=True)
        log.write_text("hello from %s\n" % name)
    return fleet


def archived(fleet: Fleet, host: str) -> str:
    return "".join(path.read_text() for path in sorted((fleet.host("a1") / "srv/shipper" / host).rglob("app.log-*")))


def test_a_guarded_fleet_with_its_own_broker_is_rolled_out_from_nothing(guarded: Fleet) -> None:
    """Check mode first; each line arrives; few tasks for each host; the second run changes nothing; status asks with
    the admin's identity; a host that leaves loses its user, and is no longer called silent."""
    checked = guarded.play("--check", "--diff")
    assert checked.code == 0, checked.output
    assert not guarded.host("b1").exists()
    first = guarded.play()
    assert first.code == 0, first.output
    rows = [json.loads(line) for line in guarded.ran.read_text().splitlines()]
    counts = Counter(row["host"] for row in rows if row["task"] != CHECK)
    most = {"producer": max(counts[name] for name in guarded.producers), "consumer": counts["a1"]}
    print("tasks that ran, with passwords, TLS and a check besides: %s" % most)
    assert all(most[role] <= MOST[role] for role in MOST), counts
    # The canary alone is checked, and what is left in the last batch is not.
    assert [row["host"] for row in rows if row["task"] == CHECK] == ["web1.example.net"]
    for name in guarded.producers:
        wait_for(lambda: archived(guarded, name) == "hello from %s\n" % name, 30)  # noqa: B023
    second = guarded.play()
    assert (second.code, second.sum("changed")) == (0, 0), second.output

    # A broker may archive too. Who had all partitions is left with nothing to read, and lets the others have them.
    guarded.consumers.update(a2={"consumer_read_partitions": [0]}, b1={"consumer_read_partitions": [1]})
    third = guarded.play()
    assert third.code == 0, third.output

    def said(host: str, text: str) -> bool:
        return text in (guarded.host(host) / "var/log/shipper/shipper-consumer-1.log").read_text()

    for number, owner in enumerate(("a2", "b1")):
        wait_for(lambda: said("a1", "Released logs-p%d" % number), 60)  # noqa: B023
        wait_for(lambda: said(owner, "Waiting for messages on subject shipper.p%d.>" % number), 60)  # noqa: B023
    status = guarded.play("-e", "shipper_assert=true", playbook="logfleet.shipper.status")
    assert status.code == 0, status.output
    assert "all is well" in status.message
    guarded.consumers = {"a1": {}}

    users = guarded.host("b1") / "etc/shipper-broker/users.conf"
    assert "web2.example.net" in users.read_text()
    del guarded.producers["web2.example.net"]
    left = guarded.play()
    assert left.code == 0, left.output
    assert "web2.example.net" not in users.read_text()
    status = guarded.play("-e", "shipper_silent_after=0s", playbook="logfleet.shipper.status")
    assert status.code == 0, status.output
    assert "web2.example.net not in the inventory" in status.message
    assert "web2.example.net silent" not in status.message and "web1.example.net silent" in status.message
    assert archived(guarded, "web2.example.net") == "hello from web2.example.net\n"


def test_what_is_misspelt_or_no_choice_is_named_before_anything_is_changed(guarded: Fleet) -> None:
    """Of any role, by the name that the operator wrote, in one sentence each."""
    guarded.vars.update(
        shipper_partitons=10,
        broker_prot=4222,
        shipper_service_manager="sytemd",
        broker_install="packages",
        producer_flies=["/var/log/syslog"],
        consumer_rotate="daily",
        broker_port=99999,
    )
    guarded.consumers["a1"]["consumer_workers"] = "two"
    run = guarded.play("-e", "shipper_serial=ten")
    assert run.code != 0
    for said in (
        "shipper_partitons is not a variable of this collection: write shipper_partitions.",
        "broker_prot is not a variable of this collection: write broker_port.",
        "producer_flies is not a variable of this collection: write producer_files.",
        "broker_install=packages for web1.example.net, web2.example.net, a1 and 1 more: use package, file or present.",
        "shipper_service_manager=sytemd for ",
        "consumer_workers=two for a1: use a whole number, 1 or more.",
        "consumer_rotate=daily for web1.example.net, web2.example.net, a1 and 1 more: use a whole number above 0 and ",
        "broker_port=99999 for ",
        "shipper_serial=ten for ",
    ):
        assert said in run.message, run.message
    assert run.sum("changed") == 0
    assert not any(guarded.host(name).joinpath("etc").exists() for name in ("b1", "a1", "web1.example.net"))
    guarded.vars["shipper_partitions"] = "ten"
    assert "shipper_partitions=ten for " in guarded.play().message


def leaves(path: Path) -> list[str]:
    """The tasks that a file of tasks comes down to, in the files that it imports too."""
    found: list[str] = []
    for task in yaml.safe_load(path.read_text(encoding="utf-8")):
        found += _leaves(task, path)
    return found


def _leaves(task: dict[str, Any], path: Path) -> list[str]:
    if "block" in task:
        return [name for inner in task["block"] for name in _leaves(inner, path)]
    if "ansible.builtin.import_tasks" in task:
        return leaves(path.parent / task["ansible.builtin.import_tasks"])
    if "ansible.builtin.import_role" in task:
        role = task["ansible.builtin.import_role"]
        name = role["name"].rpartition(".")[2]
        return leaves(ROOT / "roles" / name / "tasks" / (role["tasks_from"] + ".yml"))
    return [task["name"]]


@pytest.mark.parametrize("role", sorted(MOST))
def test_under_systemd_no_more_tasks_can_run_than_are_allowed(role: str) -> None:
    """Even if none were skipped: the fleet is looked at once, the specification once for each host, and supervisor's
    tasks run only where there is no systemd."""
    tasks = leaves(ROOT / "roles" / role / "tasks" / "main.yml")
    supervised = leaves(ROOT / "roles" / "runtime" / "tasks" / "supervisor.yml")
    surplus = leaves(ROOT / "roles" / "runtime" / "tasks" / "surplus.yml") if role == "producer" else []
    own = [name for name in tasks if name not in (*supervised, *surplus)]
    assert len(own) < len(tasks)
    assert 1 + len(own) <= MOST[role], own
