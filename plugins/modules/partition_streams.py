#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module partition_streams."""

from __future__ import annotations

DOCUMENTATION = r"""
module: partition_streams
short_description: The JetStream streams of a fleet's partitions
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Makes one stream for each partition, or changes those that are there, by C(shipper streams).
  - What would lose data is refused, and then no stream is changed.
  - How many streams there are, what they are called, and where the broker is stands in O(env_file).
extends_documentation_fragment:
  - logfleet.shipper.program
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Where program or settings are not there yet, as on a host that nothing was ever deployed to, the module says
        that there will be a change, and cannot say which.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
options:
  max_bytes:
    description:
      - What each stream may hold, such as V(10GiB). A full stream holds the producers back.
      - Without it, as without the three below, what O(env_file) says holds, and else what the program documents.
    type: str
  replicas:
    description: On how many servers each stream is kept, 1 to 5.
    type: int
  max_age:
    description: How long a message is kept at most, archived or not, such as V(7d); V(0) for no limit.
    type: str
  duplicates:
    description: For how long the broker knows a message that comes again, such as V(2m).
    type: str
  force:
    description: Whether to do what may lose data too.
    type: bool
    default: false
seealso:
  - module: logfleet.shipper.fleet_state
"""

EXAMPLES = r"""
- name: Have the streams as admin.env says
  logfleet.shipper.partition_streams:
  run_once: true

- name: Give each stream more room, on an archive host of a fleet whose broker is somebody else's
  logfleet.shipper.partition_streams:
    env_file: /etc/shipper/consumer-1.env
    max_bytes: 10GiB
"""

RETURN = r"""
streams:
  description: What was done, or would be, for each partition in order.
  returned: always
  type: list
  elements: dict
  contains:
    stream:
      description: The stream's name.
      type: str
    partition:
      description: The partition's number.
      type: int
    action:
      description: V(created), V(updated) or V(unchanged).
      type: str
    changes:
      description: For each field of the stream that was changed its value before and after, as the server has it.
      type: dict
  sample:
    - stream: logs-p0
      partition: 0
      action: updated
      changes:
        max_bytes: [1073741824, 10737418240]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.logfleet.shipper.plugins.module_utils.program import OPTIONS, Program, ProgramError

_LIMITS = ("max_bytes", "replicas", "max_age", "duplicates")


def arguments(params: dict[str, Any], check_mode: bool) -> list[str]:
    """The command line for these options."""
    found = []
    for name in _LIMITS:
        if params[name] is not None:
            found += ["--stream-%s" % name.replace("_", "-"), str(params[name])]
    return found + ["--force"] * params["force"] + ["--dry-run"] * check_mode


def difference(streams: list[dict[str, Any]]) -> dict[str, Any]:
    """Before and after of what has changed, stream by stream, in words that people read."""
    sides: list[dict[str, Any]] = [{}, {}]
    for row in streams:
        if row["action"] == "unchanged":
            continue
        # A program that is older has the server's values only.
        changes = row.get("readable") or row["changes"]
        for side, values in enumerate(sides):
            if side or row["action"] == "updated":
                values[row["stream"]] = {field: pair[side] for field, pair in changes.items()}
    return {"before": sides[0], "after": sides[1]}


def is_changed(streams: list[dict[str, Any]]) -> bool:
    """Whether anything was done."""
    return any(row["action"] != "unchanged" for row in streams)


def shown(streams: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as they are returned."""
    return [{name: row[name] for name in ("stream", "partition", "action", "changes")} for row in streams]


def main() -> None:
    """Ansible's entry point."""
    module = AnsibleModule(
        argument_spec={
            **OPTIONS,
            "max_bytes": {"type": "str"},
            "replicas": {"type": "int"},
            "max_age": {"type": "str"},
            "duplicates": {"type": "str"},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    program = Program(module)
    missing = program.missing()
    if missing is not None and module.check_mode:
        module.exit_json(
            changed=True, streams=[], msg="%s is not there yet: which streams will be made is not known" % missing
        )
    try:
        streams = program.ask("streams", *arguments(module.params, module.check_mode))
    except ProgramError as error:
        done = error.printed or []
        module.fail_json(msg=str(error), changed=is_changed(done), streams=shown(done), diff=difference(done))
    module.exit_json(changed=is_changed(streams), streams=shown(streams), diff=difference(streams))


if __name__ == "__main__":
    main()
