# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules that run the installed program, run by Ansible against a real nats-server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Fleet, Run

from shipper_runtime import bundle
from tests.support import NatsServer


class Host:
    """This machine, with the program and the admin's settings in a folder."""

    def __init__(self, fleet: Fleet, server: NatsServer) -> None:
        self.fleet = fleet
        self.server = server
        self.env_file = fleet.folder / "admin.env"
        self.write("SHIPPER_STREAM_MAX_BYTES=4MiB\n")
        done = subprocess.run(
            [sys.executable, bundle.__file__, str(fleet.folder)], stdout=subprocess.PIPE, check=True, encoding="utf-8"
        )
        self.program = json.loads(done.stdout)["path"]

    def write(self, more: str, partitions: int = 2) -> None:
        common = "NATS_URL=%s\nSHIPPER_SUBJECT=shipper\nSHIPPER_STREAM=logs\nSHIPPER_PARTITIONS=%d\n"
        self.env_file.write_text(common % (self.server.url, partitions) + more)

    def run(self, module: str, *arguments: str, **options: Any) -> Run:
        options = {
            "program": self.program,
            "python": os.path.realpath(sys.executable),
            "env_file": str(self.env_file),
            **options,
        }
        inventory = ("--inventory", "localhost,", "--connection", "local", "localhost")
        return self.fleet.ansible(
            "ansible",
            *inventory,
            *("--extra-vars", "ansible_python_interpreter=" + sys.executable),
            *("--module-name", "logfleet.shipper." + module, "--args", json.dumps(options), *arguments),
        )

    def result(self, module: str, *arguments: str, **options: Any) -> dict[str, Any]:
        run = self.run(module, *arguments, **options)
        assert run.code == 0, run.output
        return dict(json.loads(run.output.partition("=> ")[2]))


@pytest.fixture
def host(fleet: Fleet) -> Iterator[Host]:
    with NatsServer(fleet.folder / "nats", 'jetstream { store_dir: "%s" }' % (fleet.folder / "nats/store")) as server:
        yield Host(fleet, server)


def test_the_streams_are_made_and_changed_once_and_predicted_before(host: Host) -> None:
    """Check mode says the same and changes nothing, the diff has what changes; what cannot be is named."""
    predicted = host.result("partition_streams", "--check")
    assert predicted["changed"] and [row["action"] for row in predicted["streams"]] == ["created", "created"]
    made = host.result("partition_streams")
    assert (made["changed"], made["streams"]) == (True, predicted["streams"])
    again = host.result("partition_streams")
    assert (again["changed"], [row["action"] for row in again["streams"]]) == (False, ["unchanged", "unchanged"])

    # An option wins over the settings.
    changed = host.run("partition_streams", "--diff", max_bytes="6MiB", duplicates="1m")
    assert changed.code == 0 and '+        "max_bytes": "6MiB"' in changed.output, changed.output
    assert '-        "duplicate_window": "2m"' in changed.output
    assert host.result("partition_streams", max_bytes="6MiB", duplicates="1m")["changed"] is False

    # A stream that is somebody else's is neither changed nor are the others.
    host.write("", partitions=3)
    refused = host.run("partition_streams", max_bytes="8MiB", replicas=3)
    assert refused.code != 0 and "SHIPPER_STREAM_REPLICAS=3: stream logs-p0 is not updated" in refused.message
    wrong = host.run("partition_streams", max_bytes="8 apples")
    assert "SHIPPER_STREAM_MAX_BYTES=8 apples: use a whole number above 0" in wrong.message
    assert "shipper: " not in wrong.message


def test_what_is_not_there_yet_is_no_fault_in_check_mode_only(host: Host) -> None:
    for module in ("partition_streams", "fleet_state"):
        checked = host.result(module, "--check", env_file="/nonexistent/admin.env")
        assert "/nonexistent/admin.env is not there yet" in checked["msg"]
        assert checked["changed"] is (module == "partition_streams")
    assert (
        "--env-file=/nonexistent/admin.env" in host.run("partition_streams", env_file="/nonexistent/admin.env").message
    )
    assert (
        "/nonexistent/admin.env is not there: deploy"
        in host.run("fleet_state", env_file="/nonexistent/admin.env").message
    )


def test_the_state_of_a_fleet_is_data_for_assertions(host: Host) -> None:
    """Partitions, groups and hosts, who is silent and who is not expected; nothing is changed."""
    missing = host.result("fleet_state", expected=["web1"])
    assert [entry["problem"] for entry in missing["partitions"]] == ["no stream", "no stream"]
    assert missing["silent"] == [{"host": "web1", "last_seen_seconds": None}]
    host.result("partition_streams")
    env = {"NATS_URL": host.server.url}
    publish = (
        "import asyncio, nats, sys\n"
        "async def main():\n"
        "    nc = await nats.connect('%s')\n"
        "    js = nc.jetstream()\n"
        "    for subject in sys.argv[1:]:\n"
        "        await js.publish(subject, b'x')\n"
        "    await nc.close()\n"
        "asyncio.run(main())\n" % env["NATS_URL"]
    )
    subprocess.run([sys.executable, "-c", publish, "shipper.p0.web1", "shipper.p1.other"], check=True, timeout=60)
    state = host.result(
        "fleet_state", expected=["web1", "web2", "web3"], silent_after="10m", seen=[{"web2": 5}, {"web3": 700.5}]
    )
    assert state["changed"] is False
    assert [(entry["partition"], entry["problem"], entry["groups"]) for entry in state["partitions"]] == [
        (0, "no group", {}),
        (1, "no group", {}),
    ]
    assert [(row["host"], row["partition"]) for row in state["hosts"]] == [("other", 1), ("web1", 0)]
    assert [row["host"] for row in state["unexpected"]] == ["other"]
    assert state["silent"] == [{"host": "web3", "last_seen_seconds": 700.5}]
    assert (state["remembered"], state["holes"]) == ({}, [])
    wrong = host.run("fleet_state", silent_after="soon")
    assert "silent_after=soon: use a whole number and one of s, m, h, d, w, such as 1h" in wrong.message
    host.server.kill()
    away = host.run("fleet_state")
    assert away.code != 0 and "cannot connect to NATS at %s" % host.server.url in away.message
