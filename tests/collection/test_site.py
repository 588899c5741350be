# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook site, run for real: hosts are folders, services run under supervisor."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Fleet

from shipper_runtime import __version__, envfile
from shipper_runtime.partition import partition
from shipper_runtime.permissions import password


def settings(path: Path) -> dict[str, str]:
    return envfile.parse(path.read_text(encoding="utf-8"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_run_may_be_a_check_and_the_second_changes_nothing(fleet: Fleet) -> None:
    """A check on empty hosts passes and leaves them empty; a run puts everything in place and starts it; the next one
    changes nothing and restarts nothing."""
    checked = fleet.play("--check", "--diff")
    assert checked.code == 0, checked.output
    assert checked.sum("changed") > 0
    assert not fleet.host("a1").exists()
    assert not fleet.host("web1.example.net").exists()

    first = fleet.play("--diff")
    assert first.code == 0, first.output
    assert "secret-word" not in checked.output + first.output
    web1, a1 = fleet.host("web1.example.net"), fleet.host("a1")
    for host in (web1, a1):
        assert os.readlink(host / "usr/local/bin/shipper") == str(host / "opt/shipper/current")
        assert os.readlink(host / "opt/shipper/current") == str(host / "opt/shipper" / __version__)
        assert mode(host / "opt/shipper" / __version__) == 0o755
        printed = subprocess.run(
            [host / "usr/local/bin/shipper", "--version"], stdout=subprocess.PIPE, encoding="utf-8", check=True
        )
        assert printed.stdout == "shipper %s\n" % __version__
    assert mode(web1 / "etc/shipper/producer.env") == 0o640
    assert settings(web1 / "etc/shipper/producer.env") == {
        "NATS_URL": "nats://user:secret-word@127.0.0.1:9",
        "SHIPPER_SUBJECT": "shipper",
        "SHIPPER_FILE": str(web1 / "log/*.log"),
        "SHIPPER_START": "beginning",
        "SHIPPER_PARTITIONS": "4",
        "SHIPPER_PARTITION": str(partition("web1.example.net", 4)),
        "HOSTNAME": "web1.example.net",
        "SHIPPER_STATE": str(web1 / "var/lib/shipper"),
    }
    assert mode(a1 / "etc/shipper/consumer-1.env") == 0o640
    consumer = settings(a1 / "etc/shipper/consumer-1.env")
    assert consumer["SHIPPER_READ_PARTITIONS"] == "0,1,2,3"
    assert consumer["SHIPPER_DIRECTORY"] == str(a1 / "srv/shipper")
    assert mode(a1 / "srv/shipper") == 0o750

    pids = fleet.pids()
    assert sorted(pids) == ["a1 shipper-consumer-1", "web1.example.net shipper-producer"]
    second = fleet.play()
    assert second.code == 0, second.output
    assert second.sum("changed") == 0, second.output
    assert fleet.pids() == pids
    # The operator's own variables stay in the operator's shell.
    environment = Path("/proc/%s/environ" % pids["web1.example.net shipper-producer"]).read_bytes()
    assert environment == b"PATH=/usr/sbin:/usr/bin:/sbin:/bin\0"


def test_a_service_is_restarted_when_what_it_reads_has_changed_and_only_then(fleet: Fleet) -> None:
    """Another worker's settings, a bad setting and a worker that is no longer wanted touch no other service."""
    # The path of supervisor's socket would be too long below this.
    fleet.consumers = {"a" + "1" * 70: {"consumer_workers": 2}}
    (long,) = fleet.consumers
    assert fleet.play().code == 0
    etc = fleet.host(long) / "etc/shipper"
    before = fleet.pids()
    assert len(before) == 3
    reads = [settings(etc / name)["SHIPPER_READ_PARTITIONS"] for name in ("consumer-1.env", "consumer-2.env")]
    assert reads == ["0,1", "2,3"]

    # 1. Something that only the producer reads.
    fleet.vars["producer_start"] = "end"
    run = fleet.play()
    assert run.code == 0, run.output
    after = fleet.pids()
    assert {name for name in before if before[name] != after[name]} == {"web1.example.net shipper-producer"}

    # 2. A setting that cannot work is refused by the program where nobody could tell before, and nothing that is live
    # changes.
    fleet.vars["consumer_output"] = "{{ '%d-%m-%Y' }}"
    refused = fleet.play()
    assert refused.code != 0
    assert "SHIPPER_OUTPUT=%d-%m-%Y: " in refused.message
    assert settings(etc / "consumer-1.env")["SHIPPER_OUTPUT"] == "{source}-%Y%m%d"
    assert fleet.pids() == after

    # 3. One worker less: its service ends, and the other reads everything.
    del fleet.vars["consumer_output"]
    fleet.consumers[long] = {}
    assert fleet.play().code == 0
    assert sorted(path.name for path in etc.glob("consumer-*.env")) == ["consumer-1.env"]
    assert settings(etc / "consumer-1.env")["SHIPPER_READ_PARTITIONS"] == "0,1,2,3"
    left = fleet.pids()
    assert sorted(left) == ["%s shipper-consumer-1" % long, "web1.example.net shipper-producer"]
    assert left["web1.example.net shipper-producer"] == after["web1.example.net shipper-producer"]

    # 4. What was stopped by hand, or killed for good, runs again.
    fleet.supervisorctl("web1.example.net", "stop", "all")
    run = fleet.play()
    assert run.code == 0, run.output
    assert sorted(fleet.pids()) == sorted(left)
    assert run.sum("changed") == 1


def test_units_below_a_root_are_written_and_not_started(fleet: Fleet) -> None:
    """With systemd as the service manager, the units are below the root too, and carry what the host needs to know."""
    fleet.vars["shipper_service_manager"] = "systemd"
    fleet.vars["producer_read_all"] = True
    run = fleet.play()
    assert run.code == 0, run.output
    units = [fleet.host(name) / "etc/systemd/system" for name in ("web1.example.net", "a1")]
    producer = (units[0] / "shipper-producer.service").read_text()
    consumer = (units[1] / "shipper-consumer@.service").read_text()
    for text in (producer, consumer):
        assert "\nRestartPreventExitStatus=2\n" in text
        assert "\nType=notify\n" in text
        assert "\nUser=shipper\n" in text
    assert "\nCapabilityBoundingSet=CAP_DAC_READ_SEARCH\n" in producer
    assert "\nCapabilityBoundingSet=\n" in consumer
    assert "\nEnvironmentFile=%s/producer.env\n" % (fleet.host("web1.example.net") / "etc/shipper") in producer
    assert "\nEnvironmentFile=%s/consumer-%%i.env\n" % (fleet.host("a1") / "etc/shipper") in consumer
    again = fleet.play()
    assert (again.code, again.sum("changed")) == (0, 0), again.output


def test_what_is_wrong_with_the_fleet_is_said_before_anything_is_changed(fleet: Fleet) -> None:
    """Also when the run is limited to hosts with which nothing is wrong."""
    fleet.producers = {"web1": {}, "web2": {"shipper_partitions": 20, "producer_flies": []}, "web3 ": {}}
    run = fleet.play("--limit", "web1,a1")
    assert run.code != 0
    assert "producer_flies is not a variable of this collection: write producer_files. " in run.message
    assert "shipper_partitions is 20 for web2" in run.message
    assert "the host name web3 cannot be part of a subject" in run.message.replace("web3  ", "web3 ")
    assert not fleet.host("web1").exists()


def test_a_partition_needs_exactly_one_reader(fleet: Fleet) -> None:
    """What nobody reads, and what two read, is named."""
    fleet.consumers = {
        "a1": {"consumer_read_partitions": [0, 1]},
        "a2": {"consumer_read_partitions": [1, 2]},
    }
    run = fleet.play("--check")
    assert run.code != 0
    assert "partition 3 has no reader in the group archive" in run.message
    assert "partition 1 has more than one reader in the group archive, a1 and a2" in run.message

    fleet.consumers = {}
    run = fleet.play("--check")
    assert run.code != 0
    assert "nobody reads partitions 0 to 3" in run.message


def test_a_role_that_is_used_alone_looks_at_the_whole_inventory(fleet: Fleet) -> None:
    """A playbook of one's own gets the same checks; a share cannot be computed from a part of the consumers."""
    playbook = fleet.folder / "own.yml"
    playbook.write_text("- hosts: a1\n  gather_facts: false\n  roles: [logfleet.shipper.consumer]\n")
    fleet.producers["web2"] = {"shipper_partitions": 5}
    run = fleet.play("--check", playbook=str(playbook))
    assert run.code != 0
    assert "shipper_partitions is 5 for web2" in run.message

    fleet.consumers["a2"] = {}
    fleet.producers.clear()
    playbook.write_text("- hosts: shipper_consumers\n  gather_facts: false\n  roles: [logfleet.shipper.consumer]\n")
    run = fleet.play("--check", "--limit", "a1", playbook=str(playbook))
    assert run.code != 0
    assert "consumer_hosts is empty" in run.message
    run = fleet.play("--check", "--limit", "a1", "-e", '{"consumer_hosts": ["a1", "a2"]}', playbook=str(playbook))
    assert run.code == 0, run.output


def test_a_role_that_is_used_alone_stops_at_what_is_wrong(fleet: Fleet) -> None:
    """Also where it could be computed who reads what."""
    playbook = fleet.folder / "own.yml"
    playbook.write_text("- hosts: shipper_consumers\n  gather_facts: false\n  roles: [logfleet.shipper.consumer]\n")
    fleet.consumers = {name: {"consumer_read_partitions": [0, 1]} for name in ("a1", "a2")}
    run = fleet.play("--check", playbook=str(playbook))
    assert run.code != 0
    assert "more than one reader in the group archive, a1 and a2" in run.message

    playbook.write_text("- hosts: shipper_producers\n  gather_facts: false\n  roles: [logfleet.shipper.producer]\n")
    fleet.producers["web2"] = {"producer_hostname": "web1.example.net"}
    run = fleet.play("--check", playbook=str(playbook))
    assert run.code != 0
    assert "both ship as web1.example.net" in run.message


@pytest.mark.parametrize("variable", ["consumer_read_partitions: [0, 1]", "consumer_group: second"])
def test_what_only_the_role_is_told_of_who_reads_what_is_refused(fleet: Fleet, variable: str) -> None:
    """The look at the fleet knows the inventory's variables, so that it would count for nothing."""
    playbook = fleet.folder / "own.yml"
    role = "{role: logfleet.shipper.consumer, %s}" % variable
    playbook.write_text("- hosts: a1\n  gather_facts: false\n  roles: [%s]\n" % role)
    run = fleet.play("--check", playbook=str(playbook))
    assert run.code != 0
    assert "consumer_read_partitions and consumer_group of a1 are not those of the inventory" in run.message


def test_a_condition_that_leaves_the_first_host_out_says_what_to_do(fleet: Fleet) -> None:
    """For what is done once is left out with it."""
    playbook = fleet.folder / "own.yml"
    fleet.producers["web2"] = {}
    condition = "when: inventory_hostname is search('2')"
    start = "- hosts: shipper_producers\n  gather_facts: false\n"
    playbook.write_text(start + "  roles: [{role: logfleet.shipper.producer, %s}]\n" % condition)
    run = fleet.play("--check", playbook=str(playbook))
    assert run.code != 0
    assert "web1.example.net, the first host of the play, is left out by a condition (when) on the role" in run.message
    assert "put the condition on include_role" in run.message

    task = "  tasks: [{ansible.builtin.include_role: {name: logfleet.shipper.producer}, %s}]\n"
    playbook.write_text(start + task % condition)
    run = fleet.play(playbook=str(playbook))
    assert run.code == 0, run.output
    assert (fleet.host("web2") / "etc").exists()
    assert not (fleet.host("web1.example.net") / "etc").exists()


def test_a_consumer_that_consumer_hosts_does_not_name_is_named(fleet: Fleet) -> None:
    playbook = fleet.folder / "own.yml"
    playbook.write_text("- hosts: shipper_consumers\n  gather_facts: false\n  roles: [logfleet.shipper.consumer]\n")
    fleet.consumers["a2"] = {}
    run = fleet.play("--check", "-e", '{"consumer_hosts": ["a1"]}', playbook=str(playbook))
    assert run.code != 0
    assert "nobody has looked at what a2 reads: name it in consumer_hosts" in run.message


def test_a_host_may_be_called_like_the_controller(fleet: Fleet) -> None:
    """Ansible takes 127.0.0.1 in an inventory for localhost."""
    fleet.producers = {"127.0.0.1": {"producer_hostname": 1234}, "web2": {"producer_hostname": ""}}
    run = fleet.play()
    assert run.code == 0, run.output
    names = [settings(fleet.host(host) / "etc/shipper/producer.env")["HOSTNAME"] for host in fleet.producers]
    assert names == ["1234", "web2"]


@pytest.mark.parametrize("hosts", ["web1.example.net,web2", "all:!a1:!web3", "web2:&shipper_producers"])
def test_whatever_pattern_names_the_hosts_the_fleet_is_looked_at(fleet: Fleet, hosts: str) -> None:
    fleet.producers["web2"] = {"producer_flies": []}
    run = fleet.play("--check", "-e", "shipper_producer_hosts=" + hosts)
    assert run.code != 0
    assert "producer_flies is not a variable of this collection: write producer_files" in run.message


def test_a_password_in_a_url_is_not_shown_where_a_specification_is_not_met(fleet: Fleet) -> None:
    fleet.vars["shipper_nats_url"] = "nats://user:secret-word@127.0.0.1:9"
    del fleet.vars["producer_files"]
    run = fleet.play("--check")
    assert run.code != 0
    assert "producer_files" in run.output
    assert "secret-word" not in run.output


def test_each_host_has_a_password_of_its_own_that_nobody_sees(fleet: Fleet) -> None:
    """With shipper_auth=password the services' settings hold it, and lines without headers are rejected."""
    secret = "secret-word-" * 3
    fleet.vars.update(shipper_nats_url="127.0.0.1:9", shipper_auth="password", shipper_secret=secret)
    fleet.consumers = {"a1": {"shipper_identity": "archive1.example.net", "shipper_identity_generation": 2}}
    run = fleet.play("--diff")
    assert run.code == 0, run.output
    producer = settings(fleet.host("web1.example.net") / "etc/shipper/producer.env")
    consumer = settings(fleet.host("a1") / "etc/shipper/consumer-1.env")
    words = [password(secret, "web1.example.net"), password(secret, "archive1.example.net", 2)]
    assert producer["NATS_URL"] == "nats://web1.example.net:%s@127.0.0.1:9" % words[0]
    assert consumer["NATS_URL"] == "nats://archive1.example.net:%s@127.0.0.1:9" % words[1]
    assert consumer["SHIPPER_PLAIN"] == "reject"
    assert consumer["HOSTNAME"] == "a1"
    assert not [word for word in (secret, *words) if word in run.output]
    again = fleet.play()
    assert (again.code, again.sum("changed")) == (0, 0), again.output


def test_a_secret_that_is_none_stops_the_run_and_is_not_shown(fleet: Fleet) -> None:
    """As does whatever else would leave the brokers unable to tell hosts apart."""
    fleet.vars.update(shipper_auth="password", shipper_secret="secret-word", consumer_plain="accept")
    fleet.producers["web2"] = {"shipper_identity": "a1"}
    run = fleet.play("--check", "-vvv")
    assert run.code != 0
    assert "shipper_secret is shorter than 32 characters for web1.example.net, web2 and a1: put 32" in run.message
    assert "web2 and a1 both have the identity a1: " in run.message
    assert "consumer_plain=accept for a1: lines without headers may be anybody's" in run.message
    assert "secret-word" not in run.output.replace("user:secret-word", "")


def test_3000_hosts_are_looked_at_in_seconds(fleet: Fleet) -> None:
    """The look at the fleet takes as long as a play over so many hosts that does nothing, and a little more."""
    fleet.producers = {"web%d.example.net" % number: {"role": "{{ shipper_subject }}"} for number in range(3000)}
    fleet.producers["web0.example.net"]["shipper_partitions"] = 5
    started = time.monotonic()
    run = fleet.play("--check")
    elapsed = time.monotonic() - started
    assert run.code != 0
    assert re.search(r"shipper_partitions is 4 for a1, web1\.example\.net, \S+ and \d+ more|is 4 for", run.message)
    assert elapsed < 60, elapsed
