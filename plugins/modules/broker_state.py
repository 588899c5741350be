#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module broker_state."""

from __future__ import annotations

DOCUMENTATION = r"""
module: broker_state
short_description: Looks at a broker and its host, and waits for it
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Says whether nats-server is new enough and has room for what it may store, and what it is doing, as its monitoring
    tells. It fails with a sentence where it cannot work.
  - Changes nothing.
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: N/A
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
options:
  binary:
    description: The path of nats-server. Where it is not there yet nothing is said about it, in check mode.
    type: path
    required: true
  store:
    description: The folder of the streams, which need not be there yet.
    type: path
    required: true
  max_file_store:
    description: How many bytes the streams may take.
    type: int
    required: true
  monitoring:
    description: Where nats-server's monitoring listens, as C(host:port).
    type: str
    required: true
  files:
    description: Files that nats-server reads, whose contents are returned as one checksum.
    type: list
    elements: path
    default: []
  listen:
    description: The addresses on which the server is to listen. It fails for one that this host does not have.
    type: dict
    default: {}
  wait:
    description: Whether to wait until the broker is up.
    type: bool
    default: false
  loaded_after:
    description: With O(wait), the RV(loaded) from before, if the configuration must have been read again since.
    type: str
    default: ""
  member:
    description: With O(wait), whether to wait until the broker is an up-to-date member of its cluster too.
    type: bool
    default: false
  timeout:
    description: With O(wait), for how many seconds.
    type: int
    default: 300
  log:
    description: With O(wait), the command that prints the end of the server's log, of which the last error is told.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
"""

EXAMPLES = r"""
- name: Look at the broker
  logfleet.shipper.broker_state:
    binary: /opt/shipper-broker/current
    store: /var/lib/shipper-broker
    max_file_store: 10737418240
    monitoring: 127.0.0.1:8222
"""

RETURN = r"""
version:
  description: The version of O(binary). Empty where it is not there.
  returned: always
  type: str
  sample: 2.15.1
checksum:
  description: The SHA-256 checksum of O(files). Those that are not there count as empty.
  returned: always
  type: str
loaded:
  description: When the running server read its configuration. Empty where none runs.
  returned: always
  type: str
  sample: "2026-11-25T02:00:00.123456789Z"
member:
  description: Whether the running server is an up-to-date member of a cluster.
  returned: always
  type: bool
"""

import errno
import hashlib
import http.client
import json
import os
import re
import socket
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

OLDEST = (2, 10)
_ANSWER_SECONDS = 5
_PAUSE_SECONDS = 0.2
# The second is how it refuses its configuration, before it has a log.
_ERROR = re.compile(r"(?:\[(?:FTL|ERR)\] |^nats-server: )(.+)")


class Monitoring:
    """What a server tells about itself."""

    def __init__(self, place: str) -> None:
        self._place = place

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and answer; 0 where nobody answers."""
        connection = http.client.HTTPConnection(self._place, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException):
            return 0, {}
        finally:
            connection.close()

    @property
    def loaded(self) -> str:
        """When the configuration was read; empty where no server runs."""
        return str(self.get("/varz")[1].get("config_load_time", ""))

    @property
    def up(self) -> tuple[bool, str]:
        """Whether it serves streams; otherwise what it says."""
        return self._health("/healthz?js-enabled-only=true")

    @property
    def member(self) -> tuple[bool, str]:
        """Whether it is in a cluster, whose leader it knows, and whose streams it has all of."""
        if not self.get("/varz")[1].get("cluster", {}).get("urls"):
            return False, "it is in no cluster"
        return self._health("/healthz")

    def _health(self, path: str) -> tuple[bool, str]:
        status, answer = self.get(path)
        return status == 200, str(answer.get("error") or "nothing answers on %s" % self._place)


def version_of(module: AnsibleModule, binary: str) -> str:
    """The version of a nats-server; fails where it cannot be used."""
    if not os.path.exists(binary):
        if module.check_mode:
            return ""
        module.fail_json(
            msg="%s is not there: name nats-server in broker_binary, or choose broker_install=file" % binary
        )
    code, out, err = module.run_command([binary, "--version"])
    match = re.search(r"v(\d+)\.(\d+)\.(\d+)\S*", out)
    if code != 0 or match is None:
        module.fail_json(msg="%s is no nats-server: %s" % (binary, (err or out).strip()))
    if (int(match.group(1)), int(match.group(2))) < OLDEST:
        module.fail_json(
            msg="%s is nats-server %s, and durable mode needs 2.10 or newer: use broker_install=file with a newer one"
            % (binary, match.group(0)[1:])
        )
    return str(match.group(0)[1:])


def room(store: str) -> int:
    """How many bytes the streams in a folder could take: what they have, and what is free."""
    folder = store
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    taken = 0
    for place, _folders, names in os.walk(store):
        for name in names:
            try:
                taken += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError as error:
                # nats-server goes on meanwhile.
                if error.errno != errno.ENOENT:
                    raise
    return free + taken


def checksum(files: list[str]) -> str:
    """One for all files, in their order."""
    digest = hashlib.sha256()
    for path in files:
        content = b""
        if os.path.exists(path):
            with open(path, "rb") as file:
                content = file.read()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def check_listen(module: AnsibleModule, addresses: dict[str, str]) -> None:
    """Fails for an address that cannot be bound here, by the name of its variable: nats-server's own look at its
    configuration does not tell, and it would end when it is started."""
    for name, address in sorted(addresses.items()):
        problem = _why_not(address)
        if problem:
            module.fail_json(
                msg="%s=%s: this host cannot listen there (%s): use one of its addresses, or 0.0.0.0 for all"
                % (name, address, problem)
            )


def _why_not(address: str) -> str:
    """Why none of the addresses that a name stands for can be bound; nothing where one can."""
    problem = ""
    try:
        for family, kind, protocol, _name, place in socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM):
            try:
                with socket.socket(family, kind, protocol) as one:
                    one.bind(place)
                return ""
            except OSError as error:
                problem = error.strerror or str(error)
    except (OSError, UnicodeError) as error:
        problem = str(getattr(error, "strerror", None) or error)
    return problem


def last_error(module: AnsibleModule) -> str:
    """What the server said last of why it cannot work, to be appended; nothing where it said nothing."""
    if not module.params["log"]:
        return ""
    lines = module.run_command(module.params["log"])[1].splitlines()
    found = [match.group(1) for match in map(_ERROR.search, lines) if match]
    return "; its last error is: %s" % found[-1] if found else "; see %s" % " ".join(module.params["log"])


def wait(module: AnsibleModule, monitoring: Monitoring) -> None:
    """Until the broker is what it is to be; fails with what is missing."""
    deadline = time.monotonic() + module.params["timeout"]
    before = module.params["loaded_after"]
    while True:
        fine, missing = monitoring.up
        if fine and before and monitoring.loaded == before:
            fine, missing = False, "it goes on with the configuration that it had"
        if fine and module.params["member"]:
            fine, missing = monitoring.member
        if fine:
            return
        if time.monotonic() > deadline:
            module.fail_json(
                msg="the broker is not what it is to be after %d seconds: %s%s"
                % (module.params["timeout"], missing, last_error(module))
            )
        time.sleep(_PAUSE_SECONDS)


def main() -> None:
    """Ansible's entry point."""
    module = AnsibleModule(
        argument_spec={
            "binary": {"type": "path", "required": True},
            "store": {"type": "path", "required": True},
            "max_file_store": {"type": "int", "required": True},
            "monitoring": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "path", "default": []},
            "listen": {"type": "dict", "default": {}},
            "wait": {"type": "bool", "default": False},
            "loaded_after": {"type": "str", "default": ""},
            "member": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 300},
            "log": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    monitoring = Monitoring(module.params["monitoring"])
    version = version_of(module, module.params["binary"])
    check_listen(module, module.params["listen"])
    wanted, store = module.params["max_file_store"], module.params["store"]
    found = room(store)
    if wanted > found:
        module.fail_json(
            msg="the streams may take %.1f GiB on this broker, and the disk of %s has %.1f GiB for them: "
            "make it larger, or shipper_stream_max_bytes or broker_max_file_store smaller"
            % (wanted / 2**30, store, found / 2**30)
        )
    if module.params["wait"] and not module.check_mode:
        wait(module, monitoring)
    module.exit_json(
        changed=False,
        version=version,
        checksum=checksum(module.params["files"]),
        loaded=monitoring.loaded,
        member=monitoring.member[0],
    )


if __name__ == "__main__":
    main()
