# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks against a real nats-server: the streams, the canary, going back, removing, looking at what is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import Fleet, Run

from shipper_runtime import __version__
from tests.support import NatsServer, run_shipper, wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats", 'jetstream { store_dir: "%s" }' % (tmp_path / "nats/store")) as server:
        yield server


def furnish(fleet: Fleet, server: NatsServer) -> Fleet:
    """Two producers with something to ship, one archive host, streams."""
    fleet.producers = {"web1.example.net": {}, "web2.example.net": {}}
    fleet.vars.update(
        shipper_nats_url=server.url,
        shipper_stream="logs",
        shipper_partitions=2,
        shipper_stream_max_bytes="8MiB",
        producer_check_seconds=20,
    )
    for name in fleet.producers:
        write(fleet, name, "hello\n")
    return fleet


@pytest.fixture
def durable(fleet: Fleet, server: NatsServer) -> Fleet:
    """Such a fleet, to be changed before it is played."""
    return furnish(fleet, server)


class Rollout(NamedTuple):
    """Such a fleet, and what its first runs were, of which check mode was the very first."""

    fleet: Fleet
    checked: Run
    first: Run


@pytest.fixture(scope="module")
def rollout(tmp_path_factory: pytest.TempPathFactory, collections: Path) -> Iterator[Rollout]:
    """Rolled out once: each test goes on from where the one before left it, with all three hosts at work."""
    folder = tmp_path_factory.mktemp("rollout")
    with NatsServer(folder / "nats", 'jetstream { store_dir: "%s" }' % (folder / "nats/store")) as server:
        fleet = furnish(Fleet(folder, collections), server)
        try:
            checked = fleet.play("--check", "--diff")
            assert checked.code == 0, checked.output
            assert not fleet.host("a1").exists()
            first = fleet.play("--diff")
            assert first.code == 0, first.output
            yield Rollout(fleet, checked, first)
        finally:
            fleet.shutdown()


def write(fleet: Fleet, host: str, text: str) -> None:
    log = fleet.host(host) / "log/app.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(text)


def archived(fleet: Fleet, host: str) -> str:
    return "".join(path.read_text() for path in sorted((fleet.host("a1") / "srv/shipper" / host).rglob("app.log-*")))


def test_a_rollout_makes_the_streams(rollout: Rollout) -> None:
    """Check mode passes before anything is there; the second run changes nothing; nobody is warned of brokers that are
    somebody else's."""
    durable, checked, first = rollout
    assert "WARNING" not in checked.output + first.output
    assert '"logs-p1": {' in first.output and '"max_bytes": "8MiB"' in first.output
    wait_for(lambda: archived(durable, "web1.example.net") == "hello\n", 30)
    second = durable.play()
    assert (second.code, second.sum("changed")) == (0, 0), second.output

    # The streams follow the inventory.
    durable.vars["shipper_stream_max_bytes"] = "16MiB"
    changed = durable.play("--diff", "--limit", "a1")
    assert changed.sum("changed") == 1, changed.output
    assert '"max_bytes": "16MiB"' in changed.output


def streams(fleet: Fleet) -> list[dict[str, object]]:
    url = str(fleet.vars["shipper_nats_url"])
    env = {"NATS_URL": url, "SHIPPER_SUBJECT": "shipper", "SHIPPER_STREAM": "logs", "SHIPPER_PARTITIONS": "2"}
    return list(json.loads(run_shipper("status", "--json", env=env).stdout))


def test_status_names_who_is_silent_who_is_not_expected_and_what_is_wrong(
    rollout: Rollout, durable: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that was taken from the inventory is not silent, and told only while a stream holds messages of it."""
    empty = durable.play("--check", "--diff", playbook="logfleet.shipper.status")
    assert empty.code == 0, empty.output
    durable = rollout.fleet
    monkeypatch.setattr(durable, "producers", dict(durable.producers))
    wait_for(lambda: archived(durable, "web1.example.net") and archived(durable, "web2.example.net"), 30)
    wait_for(lambda: not any(row["lag_messages"] for row in streams(durable)), 30)
    durable.producers["web3.example.net"] = {}
    status = durable.play("-e", "shipper_assert=true", playbook="logfleet.shipper.status")
    assert status.code != 0
    assert "nothing that anybody remembers has ever come from web3.example.net." in status.message
    assert status.sum("changed") == 0

    del durable.producers["web3.example.net"]
    well = durable.play("-e", "shipper_assert=true", playbook="logfleet.shipper.status")
    assert well.code == 0, well.output
    assert "all is well" in well.message and "PARTITION GROUP OWNER" in well.message

    # Taken from the inventory, but it goes on: that is named. Once it is silent it is only told.
    del durable.producers["web2.example.net"]
    strange = durable.play("-e", "shipper_assert=true", playbook="logfleet.shipper.status")
    assert strange.code != 0
    assert "not in the inventory, and shipping: web2.example.net." in strange.message
    told = durable.play(
        "-e", "shipper_assert=true", "-e", "shipper_silent_after=0s", playbook="logfleet.shipper.status"
    )
    assert "web2.example.net not in the inventory" in told.message
    assert "nothing has come for 0s from web1.example.net." in told.message
    assert "and shipping" not in told.message
    typo = durable.play("-e", "shipper_asert=true", playbook="logfleet.shipper.status")
    assert "shipper_asert is not a variable of this collection: write shipper_assert" in typo.message

    monkeypatch.setitem(durable.vars, "shipper_stream", "")
    core = durable.play(playbook="logfleet.shipper.status")
    assert core.code == 0, core.output
    assert "core NATS keeps nothing that could be asked" in core.message


def test_one_goes_back_to_the_version_before_and_forward_again(
    rollout: Rollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it needs to know for that; a second time changes nothing; and where there is none it says so."""
    durable = rollout.fleet
    monkeypatch.setattr(durable, "producers", {"web1.example.net": {}})
    nothing = durable.play(playbook="logfleet.shipper.rollback")
    assert (nothing.code, nothing.sum("changed")) == (0, 0), nothing.output
    assert "web1.example.net: %s is the only version that ran here" % __version__ in nothing.message

    # An older one, which is the same program by another name.
    for name in ("web1.example.net", "a1"):
        opt = durable.host(name) / "opt/shipper"
        (opt / "0.1.9").write_bytes((opt / __version__).read_bytes() + b"\n")
        (opt / "0.1.9").chmod(0o755)
        (opt / "previous").symlink_to(opt / "0.1.9")
    pids = durable.pids()
    checked = durable.play("--check", "--diff", playbook="logfleet.shipper.rollback")
    assert checked.code == 0, checked.output
    assert durable.pids() == pids
    back = durable.play("--diff", playbook="logfleet.shipper.rollback")
    assert back.code == 0, back.output
    assert "web1.example.net: went back from %s to 0.1.9" % __version__ in back.message
    after = durable.pids()
    assert after.keys() == pids.keys() and not set(after.values()) & set(pids.values())
    again = durable.play(playbook="logfleet.shipper.rollback")
    assert (again.code, again.sum("changed")) == (0, 0), again.output
    assert durable.pids() == after
    missing = durable.play("-e", "shipper_version=9.9", playbook="logfleet.shipper.rollback")
    assert "shipper_version=9.9: this host does not keep it; it has 0.1.9, %s" % __version__ in missing.message

    forward = durable.play()
    assert forward.code == 0, forward.output
    opt = durable.host("web1.example.net") / "opt/shipper"
    assert os.readlink(opt / "current") == str(opt / __version__)
    assert os.readlink(opt / "previous") == str(opt / "0.1.9")
    assert not set(durable.pids().values()) & set(after.values())

    # A version that does not take the settings of a service is not gone back to.
    (opt / "0.1.9").write_text("import sys\nsys.exit('no such setting')\n")
    refused = durable.play(playbook="logfleet.shipper.rollback")
    assert refused.code != 0
    assert (
        "0.1.9 cannot work with %s/etc/shipper/producer.env, so nothing was changed: no such setting"
        % (durable.host("web1.example.net"))
        in refused.message
    )
    assert os.readlink(opt / "current") == str(opt / __version__)


def test_a_canary_that_does_not_ship_stops_the_rollout(rollout: Rollout) -> None:
    """What it reads cannot work: the program takes it, and the broker does not. It is left so, and is the last one."""
    durable = rollout.fleet
    env = durable.host("web2.example.net") / "etc/shipper/producer.env"
    before = env.read_text()
    durable.vars["producer_nats_url"] = "nats://127.0.0.1:9"
    durable.vars["producer_check_seconds"] = 3
    write(durable, "web1.example.net", "more\n")
    stopped = durable.play()
    assert stopped.code != 0
    assert "shipper-producer runs, but: cannot connect to NATS at nats://127.0.0.1:9" in stopped.message
    assert env.read_text() == before
    assert stopped.recap["web2.example.net"]["ok"] == 0 if "web2.example.net" in stopped.recap else True


def test_what_was_put_on_hosts_is_removed_and_logs_and_archive_stay(durable: Fleet, server: NatsServer) -> None:
    """As check mode says; a second time changes nothing; a host that has two roles keeps what the other one needs."""
    durable.vars["producer_root"] = durable.vars["consumer_root"]
    durable.producers = {"web1.example.net": {}}
    durable.consumers = {"a1": {}, "web1.example.net": {}}
    empty = durable.play("--check", "--diff", playbook="logfleet.shipper.remove")
    assert (empty.code, empty.sum("changed")) == (0, 0), empty.output
    assert durable.play().code == 0
    web1, a1 = durable.host("web1.example.net"), durable.host("a1")
    wait_for(lambda: list(durable.folder.glob("*/srv/shipper/web1.example.net/**/app.log-*")), 30)
    there = sorted(str(path) for path in durable.folder.glob("*/srv/shipper/web1.example.net/**/app.log-*"))
    pids = durable.pids()

    checked = durable.play("--check", playbook="logfleet.shipper.remove")
    assert checked.code == 0, checked.output
    assert durable.pids() == pids
    # One role of a host that has two.
    one = durable.play("-e", "shipper_consumer_hosts=a1", playbook="logfleet.shipper.remove")
    assert one.code == 0, one.output
    assert sorted(durable.pids()) == ["web1.example.net shipper-consumer-1"]
    assert not (web1 / "etc/shipper/producer.env").exists()
    assert (web1 / "var/lib/shipper/positions.json").exists()
    assert not (a1 / "etc/shipper").exists() and not (a1 / "opt/shipper").exists()

    rest = durable.play("-e", "shipper_remove_state=true", playbook="logfleet.shipper.remove")
    assert rest.code == 0, rest.output
    assert durable.pids() == {}
    for host in (web1, a1):
        left = {path.relative_to(host).parts[0] for path in host.rglob("*") if path.is_file()}
        assert left <= {"srv", "log", "var"}, left
    assert not (web1 / "var/lib/shipper").exists()
    assert sorted(str(path) for path in durable.folder.glob("*/srv/shipper/web1.example.net/**/app.log-*")) == there
    assert (web1 / "log/app.log").read_text() == "hello\n"
    again = durable.play("-e", "shipper_remove_state=true", playbook="logfleet.shipper.remove")
    assert (again.code, again.sum("changed")) == (0, 0), again.output
    # What is misspelt is named, for it would be left out in silence.
    typo = durable.play("-e", "shipper_remove_stat=true", playbook="logfleet.shipper.remove")
    assert "shipper_remove_stat is not a variable of this collection: write shipper_remove_state" in typo.message


def test_a_plan_is_a_table_and_a_page_and_touches_no_host(fleet: Fleet) -> None:
    """It needs no connection to any; what cannot be is named."""
    fleet.producers = {"web%d.example.net" % number: {} for number in range(40)}
    fleet.consumers = {"a1": {}, "a2": {}}
    fleet.vars["ansible_connection"] = "ssh"
    page = fleet.folder / "shipper-plan.html"
    arguments = ("-e", "shipper_new_partitions=8", "-e", '{"shipper_new_consumers": ["a1", "a2", "a3"]}')
    where = ("-e", "shipper_plan_page=%s" % page)
    checked = fleet.play("--check", "--diff", *arguments, *where, playbook="logfleet.shipper.plan")
    assert checked.code == 0, checked.output
    assert not page.exists()
    plan = fleet.play(*arguments, *where, playbook="logfleet.shipper.plan")
    assert plan.code == 0, plan.output
    assert "hosts move to another partition" in plan.message
    assert set(plan.recap) == {"localhost"}
    text = page.read_text()
    assert text.count("<svg") == 3 and "prefers-color-scheme: dark" in text
    assert "<script" not in text and "http" not in text
    again = fleet.play(*arguments, *where, playbook="logfleet.shipper.plan")
    assert (again.code, again.sum("changed")) == (0, 0), again.output
    wrong = fleet.play("-e", "shipper_new_partitions=ten", *where, playbook="logfleet.shipper.plan")
    assert "shipper_new_partitions=ten for localhost: use a whole number, 0 or more" in wrong.message
