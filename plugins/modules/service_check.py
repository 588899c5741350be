#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module service_check."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_check
short_description: Whether a service of this collection works
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Fails unless the service runs, says that it is connected, as far as its service manager knows, and is still the
    same process after O(settle) seconds, in which one that fails at its start would have been started again.
  - With O(verify) it fails, too, unless what the host's files held a moment ago has been acknowledged, as
    C(shipper verify) finds out. Of a large backlog it is enough that it becomes smaller. In durable mode the stream has
    it then.
  - Changes nothing. It is for the first hosts of a rollout, before the others follow.
extends_documentation_fragment:
  - logfleet.shipper.program
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Looks at nothing then, for nothing that was changed in check mode could be there.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
options:
  name:
    description: The service, such as V(shipper-producer) or V(shipper-consumer@1).
    type: str
    required: true
  supervisorctl:
    description: The command that asks supervisor. Without it, systemd is asked.
    type: list
    elements: str
  verify:
    description: Whether to find out if what there is to ship arrives. The service must be a producer.
    type: bool
    default: false
  wait:
    description: How many seconds the service may need to be connected, and what there is to ship to arrive.
    type: int
    default: 30
  jitter:
    description: For how long the service may hold back before it connects, such as V(30s). It is added to O(wait).
    type: str
    default: 0s
  settle:
    description: For how many seconds the service must have been the same process.
    type: int
    default: 7
"""

EXAMPLES = r"""
- name: See that this host ships before the others follow
  logfleet.shipper.service_check:
    name: shipper-producer
    env_file: /etc/shipper/producer.env
    verify: true
"""

RETURN = r"""
status:
  description: What the service says of itself, or its service manager of it.
  returned: success
  type: str
  sample: publishing to shipper.p5.web1.example.net
verified:
  description: What C(shipper verify) found. Null where it was not asked, or is not known to the installed version.
  returned: success
  type: dict
  sample:
    host: web1.example.net
    subject: shipper.p5.web1.example.net
    stream: logs-p5
    files: 3
    not_begun: []
    behind_bytes: 0
    last_sequence: 1234
"""

import re
import time
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.logfleet.shipper.plugins.module_utils.fleet import duration
from ansible_collections.logfleet.shipper.plugins.module_utils.program import OPTIONS, Program, ProgramError

_PAUSE = 0.5
_PROPERTIES = "ActiveState,SubState,MainPID,NRestarts,StatusText,Result,LoadState"
_SUPERVISED = re.compile(r"\S+\s+([A-Z]+)\s*(?:pid (\d+), )?(.*)")


class Sample:
    """How a service is at one moment: pid is 0 where no process of it is fully there; broken is why it never will be,
    in words; waiting is what it says while it is not connected; restarts are those that its manager counts."""

    def __init__(self, pid: int, status: str, broken: str = "", waiting: str = "", restarts: int = 0) -> None:
        self.pid = pid
        self.status = status
        self.broken = broken
        self.waiting = waiting
        self.restarts = restarts


def of_systemd(text: str) -> Sample:
    """What ``systemctl show`` printed."""
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    state = "%s (%s)" % (found.get("ActiveState", ""), found.get("SubState", ""))
    status = found.get("StatusText", "")
    if found.get("LoadState") == "not-found":
        return Sample(0, state, "systemd does not know it")
    if found.get("ActiveState") in ("failed", "inactive") or found.get("SubState") == "auto-restart":
        return Sample(0, state, "it is %s, with the result %s" % (state, found.get("Result", "")))
    running = found.get("ActiveState") == "active"
    waiting = status if status.startswith(("connecting", "waiting")) else ""
    pid = int(found.get("MainPID") or 0) if running else 0
    return Sample(pid, status or state, waiting=waiting, restarts=int(found.get("NRestarts") or 0))


def of_supervisor(text: str) -> Sample:
    """What ``supervisorctl status NAME`` printed."""
    match = _SUPERVISED.match(text.strip())
    if match is None or match.group(1) not in ("STARTING", "RUNNING", "STOPPING"):
        return Sample(0, text.strip(), "supervisor says: %s" % text.strip())
    return Sample(int(match.group(2) or 0) if match.group(1) == "RUNNING" else 0, text.strip())


def watch(
    look: Callable[[], Sample], wait: float, settle: float, between: Callable[[], Any]
) -> tuple[Sample, Any, str]:
    """The last look, what between() returned once the service was there, and why it does not work, or nothing."""
    began = time.monotonic()
    first = look()
    while not first.pid or first.waiting:
        if first.broken:
            return first, None, first.broken
        if time.monotonic() - began > wait:
            return first, None, "after %d seconds it is still %s" % (wait, first.waiting or first.status)
        time.sleep(_PAUSE)
        first = look()
    settled = time.monotonic() + settle
    result = between()
    while True:
        last = look()
        if last.broken:
            return last, result, last.broken
        if (last.pid, last.restarts) != (first.pid, first.restarts):
            return last, result, "it does not stay: process %d became %s" % (first.pid, last.pid or last.status)
        left = settled - time.monotonic()
        if left <= 0:
            return last, result, ""
        time.sleep(min(_PAUSE, left))


def main() -> None:
    """Ansible's entry point."""
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "name": {"type": "str", "required": True},
            "supervisorctl": {"type": "list", "elements": "str"},
            "verify": {"type": "bool", "default": False},
            "wait": {"type": "int", "default": 30},
            "jitter": {"type": "str", "default": "0s"},
            "settle": {"type": "int", "default": 7},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, msg="nothing is looked at in check mode")
    name, supervisorctl = module.params["name"], module.params["supervisorctl"]
    try:
        wait = module.params["wait"] + duration(module.params["jitter"] or "0s")
    except ValueError as error:
        module.fail_json(msg="jitter=%s: %s" % (module.params["jitter"], error))
    program = Program(module)

    def look() -> Sample:
        if supervisorctl:
            return of_supervisor(module.run_command([*supervisorctl, "status", name])[1])
        unit = name if name.endswith(".service") else name + ".service"
        return of_systemd(module.run_command(["systemctl", "show", "--property", _PROPERTIES, unit])[1])

    def verify() -> Any:
        if not module.params["verify"]:
            return None
        try:
            return program.ask("verify", "--wait", str(wait))
        except ProgramError as error:
            # A version that was gone back to may not have the command.
            return None if "invalid choice: 'verify'" in str(error) else str(error)

    last, verified, problem = watch(look, wait, module.params["settle"], verify)
    if problem:
        log = "its log" if supervisorctl else "journalctl -u %s" % name
        module.fail_json(msg="%s does not work: %s; see %s" % (name, problem, log))
    if isinstance(verified, str):
        module.fail_json(msg="%s runs, but: %s" % (name, verified))
    module.exit_json(changed=False, status=last.status, verified=verified)


if __name__ == "__main__":
    main()
