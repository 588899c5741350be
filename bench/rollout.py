# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout takes: tasks and seconds a host, for the first run and for one that changes nothing.

On real systemd hosts of this machine, in molecule/lab: one broker, two archive hosts, the others ship; TLS and
permissions on. It needs root. Exits with 1 where a promise does not hold, with 3 where there can be no such hosts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT / "molecule" / "lab"
SHARED = ROOT / "molecule" / "shared"
BIN = Path(sys.executable).parent

# The role of a host, its group, how many tasks it may take, argument specifications included.
ROLES = (("producer", "shipper_producers", 12), ("consumer", "shipper_consumers", 14), ("broker", "shipper_brokers", 0))
# prometheus.prometheus.node_exporter, a role around one binary, as its own tests run it.
NODE_EXPORTER_TASKS = 41
DOMAIN = "rollout.test"
_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


def inventory(count: int) -> dict[str, object]:
    """So many hosts, Debian 12 and 13 in turn."""
    names = ["broker1", "archive1", "archive2", *("web%d" % number for number in range(1, count - 2))]
    hosts = {
        "%s.%s" % (name, DOMAIN): {
            "lab_address": "10.77.9.%d" % number,
            "lab_image": ("debian12", "debian13")[number % 2],
        }
        for number, name in enumerate(names, 1)
    }
    groups = {
        "shipper_brokers": list(hosts)[:1],
        "shipper_consumers": list(hosts)[1:3],
        "shipper_producers": list(hosts)[3:],
    }
    variables = {
        "lab_scenario": "rollout",
        "shipper_auth": "mtls",
        "shipper_nats_url": "tls://broker1.%s:4222" % DOMAIN,
        # A batch more for the first, which is checked before the others follow.
        "shipper_serial": [1, "100%"],
    }
    children = {name: {"hosts": {host: hosts[host] for host in members}} for name, members in groups.items()}
    return {"lab": {"vars": variables, "children": children}}


class Playbooks:
    """Runs playbooks on the hosts, with the collection as a tarball installs it."""

    def __init__(self, folder: Path, hosts: dict[str, object]) -> None:
        self._inventory = folder / "inventory.json"
        self._inventory.write_text(json.dumps(hosts))
        self._env = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_FORKS": "20",
            "ANSIBLE_NOCOLOR": "1",
            "HOME": str(folder),
        }
        self._call("ansible-galaxy", "collection", "build", "--output-path", str(folder), str(ROOT))
        (tarball,) = folder.glob("*.tar.gz")
        self._call("ansible-galaxy", "collection", "install", "--offline", str(tarball))

    def run(self, playbook: str) -> str:
        return self._call(
            "ansible-playbook", "-i", str(SHARED / "inventory" / "hosts.yml"), "-i", str(self._inventory), playbook
        )

    def _call(self, program: str, *arguments: str) -> str:
        command = [str(BIN / program), *arguments]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit("%s failed:\n%s%s" % (" ".join(command), done.stdout, done.stderr))
        return done.stdout


def measure(count: int) -> int:
    """Prints the table; the exit code."""
    hosts = inventory(count)
    with tempfile.TemporaryDirectory(prefix="shipper-bench-") as folder:
        playbooks = Playbooks(Path(folder), hosts)
        playbooks.run(str(SHARED / "create.yml"))
        playbooks.run(str(SHARED / "prepare.yml"))
        rows = []
        for title in ("first run", "nothing changed"):
            started = time.monotonic()
            output = playbooks.run("logfleet.shipper.site")
            rows.append((title, time.monotonic() - started, recap(output)))
    print("%d hosts on this machine's %d cores, in one run of the playbook site\n" % (count, os.cpu_count() or 0))
    print("%-18s %10s %15s %10s %10s" % ("", "seconds", "seconds a host", "tasks", "changes"))
    for title, seconds, found in rows:
        tasks = sum(ok for ok, _changed in found.values())
        changes = sum(changed for _ok, changed in found.values())
        print("%-18s %10.1f %15.2f %10d %10d" % (title, seconds, seconds / count, tasks, changes))
    print("\n%-32s %18s %10s" % ("tasks that run on a host", "at most", "promised"))
    failed = changes > 0
    children = hosts["lab"]["children"]  # type: ignore[index]
    for role, group, promised in ROLES:
        most = max(
            ok
            for _title, _seconds, found in rows
            for host, (ok, _changed) in found.items()
            if host in children[group]["hosts"]
        )
        print("%-32s %18d %10s" % (role, most, promised or ""))
        failed = failed or bool(promised and most > promised)
    print("%-32s %18s" % ("prometheus.node_exporter, to compare", "about %d" % NODE_EXPORTER_TASKS))
    return 1 if failed else 0


def recap(output: str) -> dict[str, tuple[int, int]]:
    """For each host how many tasks ran, and how many of them changed something."""
    return {match[1]: (int(match[2]), int(match[3])) for match in _RECAP.finditer(output)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=20, help="how many, 4 at least; %(default)s without")
    options = parser.parse_args()
    if "SHIPPER_LAB_TAG" not in os.environ:
        os.execv(sys.executable, [sys.executable, str(LAB / "lab.py"), "run", sys.executable, *sys.argv])
    return measure(options.hosts)


if __name__ == "__main__":
    sys.exit(main())
