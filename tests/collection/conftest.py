# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the collection share: the tree where Ansible looks for it, and a fleet of folders."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TIMEOUT = 240


class Run:
    """A playbook's run: its exit code, all that it printed, and the counts of its recap."""

    def __init__(self, code: int, output: str) -> None:
        self.code = code
        self.output = output
        self.recap = {
            host: {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", counts)}
            for host, counts in re.findall(r"^(\S+) +: (ok=.*)$", output, re.MULTILINE)
        }

    def sum(self, name: str) -> int:
        return sum(counts[name] for counts in self.recap.values())

    @property
    def message(self) -> str:
        """All that was printed, on one line, for sentences that may be wrapped."""
        return " ".join(self.output.replace('\\"', '"').split())


class Fleet:
    """An inventory whose hosts are folders of this machine, their services under supervisor."""

    def __init__(self, folder: Path, collections: Path) -> None:
        self.folder = folder
        self.producers: dict[str, dict[str, Any]] = {"web1.example.net": {}}
        self.consumers: dict[str, dict[str, Any]] = {"a1": {}}
        self.vars: dict[str, Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "shipper_partitions": 4,
            "shipper_subject": "shipper",
            # Nobody listens there: the services wait, which is all that they must do here.
            "shipper_nats_url": "nats://user:secret-word@127.0.0.1:9",
            "shipper_python": os.path.realpath(sys.executable),
            "shipper_service_manager": "supervisor",
            "producer_root": str(folder / "{{ inventory_hostname }}"),
            "producer_files": ["{{ producer_root }}/log/*.log"],
            # There is nobody to ship to.
            "producer_check_seconds": 0,
            "consumer_root": str(folder / "{{ inventory_hostname }}"),
        }
        self.brokers: dict[str, dict[str, Any]] = {}
        self._collections = collections

    def host(self, name: str) -> Path:
        return self.folder / name

    @property
    def ran(self) -> Path:
        """A JSON object a line: each task that ran on a host in the last run."""
        return self.folder / "ran.jsonl"

    def play(self, *arguments: str, playbook: str = "logfleet.shipper.site") -> Run:
        inventory = self.folder / "inventory.json"
        groups = {"shipper_producers": {"hosts": self.producers}, "shipper_consumers": {"hosts": self.consumers}}
        if self.brokers:
            groups["shipper_brokers"] = {"hosts": self.brokers}
        inventory.write_text(json.dumps({"all": {"vars": self.vars, "children": groups}}))
        return self.ansible("ansible-playbook", "--inventory", str(inventory), playbook, *arguments)

    def ansible(self, program: str, *arguments: str) -> Run:
        dropped = ("ANSIBLE_", "SHIPPER_", "NATS_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        environment.update(
            ANSIBLE_COLLECTIONS_PATH=str(self._collections),
            ANSIBLE_HOME=str(self.folder / "ansible-home"),
            ANSIBLE_NOCOLOR="1",
            # Not piped into Python, which reads it byte by byte. The file is put where no other run is.
            ANSIBLE_PIPELINING="0",
            ANSIBLE_REMOTE_TMP=str(self.folder / "ansible-home" / "remote"),
            PYTHONPATH=str(Path(__file__).parent / "startup"),
            COMPILED=str(self._collections / "compiled"),
            ANSIBLE_LOCALHOST_WARNING="0",
            XDG_CACHE_HOME=str(self._collections / "cache"),
            ANSIBLE_CALLBACK_PLUGINS=str(Path(__file__).parent / "callbacks"),
            ANSIBLE_CALLBACKS_ENABLED="ran",
            RAN_LOG=str(self.ran),
            # What an operator has in the shell must not reach the services.
            NATS_CREDS="/nonexistent",
            SHIPPER_STREAM="stray",
        )
        done = subprocess.run(
            [str(BIN / program), *arguments],
            cwd=self.folder,
            env=environment,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            encoding="utf-8",
        )
        return Run(done.returncode, done.stdout)

    def supervisorctl(self, host: str, *arguments: str) -> str:
        configuration = self.host(host) / "etc/shipper/supervisor/supervisord.conf"
        done = subprocess.run(
            [str(BIN / "supervisorctl"), "-c", str(configuration), *arguments],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            encoding="utf-8",
        )
        return done.stdout

    def pids(self) -> dict[str, str]:
        """The process of each service that runs, by host and name, once all have been started."""
        status = {host: self._status(host) for host in (*self.producers, *self.consumers)}
        return {
            "%s %s" % (host, name): pid
            for host, text in status.items()
            for name, pid in re.findall(r"^(\S+) +RUNNING +pid (\d+)", text, re.MULTILINE)
        }

    def _status(self, host: str) -> str:
        deadline = time.monotonic() + 60
        status = self.supervisorctl(host, "status")
        while "STARTING" in status and time.monotonic() < deadline:
            time.sleep(0.2)
            status = self.supervisorctl(host, "status")
        return status

    def shutdown(self) -> None:
        for configuration in self.folder.glob("*/etc/shipper/supervisor/supervisord.conf"):
            subprocess.run(
                [str(BIN / "supervisorctl"), "-c", str(configuration), "shutdown"],
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=60,
            )


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collections path with a copy of this tree, which does not change from one run to the next."""
    folder = tmp_path_factory.mktemp("collections")
    copy = folder / "ansible_collections" / "logfleet" / "shipper"
    for name in ("meta", "playbooks", "plugins", "roles", "shipper_runtime"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "galaxy.yml", copy)
    (folder / "compiled").mkdir()
    return folder


@pytest.fixture
def fleet(tmp_path: Path, collections: Path) -> Iterator[Fleet]:
    """A fleet of one producer and one consumer, to be changed before it is played."""
    fleet = Fleet(tmp_path, collections)
    yield fleet
    fleet.shutdown()
