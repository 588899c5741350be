#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module fleet_state."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_state
short_description: How far a fleet's log lines are archived, who holds them back, which hosts are silent
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Asks the broker by C(shipper status), and an archive host's ledger by C(shipper ledger). Changes nothing.
  - A stream forgets what every archive has committed and what it has no room for, so a host that is not in it may have
    shipped an hour ago. Archives remember each host for 90 days; what they know is given to O(seen).
  - Of hosts whose lines come from other publishers, such as fshipper, only the streams know.
extends_documentation_fragment:
  - logfleet.shipper.program
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Where program or settings are not there yet everything is empty then, and RV(ignore:msg) says so.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
options:
  ask:
    description:
      - Whom to ask.
      - V(streams) needs settings that may look at all streams, V(archive) the settings of an archive host on that host.
    type: list
    elements: str
    choices:
      - streams
      - archive
    default:
      - streams
  expected:
    description:
      - The names of the hosts that should ship, as they ship.
      - Without it RV(silent) and RV(unexpected) are empty.
    type: list
    elements: str
  silent_after:
    description: How long a host of O(expected) may ship nothing, such as V(90m), V(1h) or V(2d).
    type: str
    default: 1h
  seen:
    description:
      - What archive hosts remember, RV(remembered) of each of them. A host counts as seen when any of them saw it.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Ask the broker
  logfleet.shipper.fleet_state:
    expected: "{{ groups.web }}"
    silent_after: 2h
  register: fleet

- name: Stop where lines wait for longer than five minutes, or a host is silent
  ansible.builtin.assert:
    that:
      - fleet.partitions | map(attribute='groups') | map('dict2items') | flatten
        | rejectattr('value.lag_seconds', 'none') | selectattr('value.lag_seconds', '>', 300) | list | length == 0
      - fleet.silent | length == 0

- name: Ask an archive host what it remembers
  logfleet.shipper.fleet_state:
    ask: [archive]
    env_file: /etc/shipper/consumer-1.env
"""

RETURN = r"""
partitions:
  description: Each partition, where the streams were asked.
  returned: always
  type: list
  elements: dict
  contains:
    partition:
      description: Its number.
      type: int
    stream:
      description: Its stream.
      type: str
    bytes:
      description: What the stream holds. Null where there is no stream.
      type: int
    max_bytes:
      description: What the stream may hold. Null where it has no limit.
      type: int
    full:
      description: Whether the stream refuses messages, or is about to.
      type: bool
    broker_full:
      description: Whether all of what the broker may store is used. Null where that is not known.
      type: bool
    problem:
      description: What is wrong with the stream, in words. Null where nothing is.
      type: str
    held_back_by:
      description: The groups for which the stream keeps what the others have committed.
      type: list
      elements: str
    groups:
      description: Each group of archive hosts by its name.
      type: dict
      contains:
        owner:
          description: The archive host that reads the partition, or null.
          type: str
        released:
          description: Whether the last owner has left it to another one.
          type: bool
        lag_messages:
          description: How many messages are not committed.
          type: int
        lag_seconds:
          description: How old the oldest of them is.
          type: float
        last_commit_seconds:
          description: How long ago something was committed.
          type: float
rows:
  description:
    - Each partition and group, as C(shipper status --json) has them.
    - For P(logfleet.shipper.broker_users#filter).
  returned: always
  type: list
  elements: dict
hosts:
  description: Each host of which the streams still hold a message.
  returned: always
  type: list
  elements: dict
  contains:
    host:
      description: Its name.
      type: str
    partition:
      description: Its partition.
      type: int
    sequence:
      description: Its last message's place in the stream.
      type: int
    committed:
      description: Whether every group has committed it. Null where there is no group.
      type: bool
    behind:
      description: For each group how many messages lie between what it has committed and this one.
      type: dict
    last_seen_seconds:
      description: How long ago it was stored.
      type: float
silent:
  description: The hosts of O(expected) that have shipped nothing for O(silent_after).
  returned: always
  type: list
  elements: dict
  contains:
    host:
      description: Its name.
      type: str
    last_seen_seconds:
      description: How long ago it shipped. Null where nobody remembers that it ever has.
      type: float
unexpected:
  description: The hosts of which the streams hold messages, and that are not among O(expected).
  returned: always
  type: list
  elements: dict
  contains:
    host:
      description: Its name.
      type: str
    last_seen_seconds:
      description: How long ago it shipped.
      type: float
remembered:
  description: How many seconds ago this archive wrote something of each host, where it was asked.
  returned: always
  type: dict
holes:
  description: What this archive knows to have been published and never to have come, the oldest first.
  returned: always
  type: list
  elements: dict
  contains:
    stream:
      description: The stream.
      type: str
    host:
      description: The host, or empty where it is not known whose messages it were.
      type: str
    source:
      description: The path of the file on that host.
      type: str
    first:
      description: The first byte of the file, or message of the stream, that is missing.
      type: int
    last:
      description: What comes behind the last one that is missing.
      type: int
    seconds:
      description: How long ago it was noticed.
      type: float
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.logfleet.shipper.plugins.module_utils.fleet import (
    duration,
    last_seen,
    partitions,
    silent,
    unexpected,
)
from ansible_collections.logfleet.shipper.plugins.module_utils.program import OPTIONS, Program, ProgramError


def _nothing(why: str) -> dict[str, Any]:
    empty: dict[str, Any] = {name: [] for name in ("partitions", "rows", "hosts", "silent", "unexpected", "holes")}
    return {**empty, "remembered": {}, "msg": why}


def main() -> None:
    """Ansible's entry point."""
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "ask": {"type": "list", "elements": "str", "choices": ["streams", "archive"], "default": ["streams"]},
            "expected": {"type": "list", "elements": "str"},
            "silent_after": {"type": "str", "default": "1h"},
            "seen": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        after = duration(module.params["silent_after"])
    except ValueError as error:
        module.fail_json(msg="silent_after=%s: %s" % (module.params["silent_after"], error))
    program = Program(module)
    missing = program.missing()
    if missing is not None and not module.check_mode:
        module.fail_json(msg="%s is not there: deploy the fleet first, or name another one" % missing)
    rows, hosts = [], []
    history = {"hosts": [], "holes": []}
    try:
        if missing is not None:
            module.exit_json(changed=False, **_nothing("%s is not there yet" % missing))
        if "streams" in module.params["ask"]:
            rows, hosts = program.ask("status"), program.ask("status", "--hosts")
        if "archive" in module.params["ask"]:
            history = program.ask("ledger")
    except ProgramError as error:
        module.fail_json(msg=str(error))
    remembered = last_seen(history["hosts"])
    expected = module.params["expected"]
    memories = [{host: float(seconds) for host, seconds in memory.items()} for memory in module.params["seen"]]
    module.exit_json(
        changed=False,
        partitions=partitions(rows),
        rows=rows,
        hosts=hosts,
        silent=[] if expected is None else silent(expected, last_seen(hosts, remembered, *memories), after),
        unexpected=[] if expected is None else unexpected(expected, hosts),
        remembered=remembered,
        holes=history["holes"],
    )


if __name__ == "__main__":
    main()
