# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter plan_change."""

from __future__ import annotations

DOCUMENTATION = r"""
name: plan_change
short_description: What another number of partitions, or other archive hosts, would move
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Compares a fleet as the inventory has it with what it would be. Nothing is asked of any host.
options:
  _input:
    description: Ansible's C(hostvars).
    type: dict
    required: true
  producers:
    description: The inventory names of all hosts that ship.
    type: list
    elements: str
    required: true
  consumers:
    description: The inventory names of all hosts that archive.
    type: list
    elements: str
    required: true
  partitions:
    description: The number of partitions that is thought of. Without it, it stays as it is.
    type: int
  new_consumers:
    description:
      - The hosts that are thought of to archive. Without it, they stay as they are.
      - Those that are not in the inventory belong to the group of the first that is.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Print what twice as many partitions would move
  ansible.builtin.debug:
    msg: "{{ (hostvars | logfleet.shipper.plan_change(groups.web, groups.archive, partitions=20)).lines }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The plan.
  type: dict
  contains:
    problems:
      description: Why there is no plan, one sentence each. All else is empty then.
      type: list
      elements: str
    lines:
      description: The plan as lines.
      type: list
      elements: str
    page:
      description: The plan as a page of HTML that needs nothing from elsewhere.
      type: str
    moving_hosts:
      description: The names, as they ship, of the hosts that move to another partition.
      type: list
      elements: str
    moving_partitions:
      description: The partitions that another archive host reads then.
      type: list
      elements: dict
"""

from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.plugin_utils.inventory import Inventory
from ansible_collections.logfleet.shipper.shipper_runtime import change
from ansible_collections.logfleet.shipper.shipper_runtime.fleet import VARIABLES
from ansible_collections.logfleet.shipper.shipper_runtime.page import as_page


def plan_change(
    hostvars: Any, producers: Any, consumers: Any, partitions: Any = None, new_consumers: Any = None
) -> dict[str, Any]:
    """The plan. Raises AnsibleFilterError."""
    missing = [host for host in (*producers, *consumers) if host not in hostvars]
    if missing:
        raise AnsibleFilterError("plan_change: the inventory has no host %s" % ", ".join(missing))
    if new_consumers is not None and (isinstance(new_consumers, str) or not all(new_consumers)):
        raise AnsibleFilterError(
            'plan_change: shipper_new_consumers=%s: use a list of names, as in -e \'{"shipper_new_consumers": ["a1"]}\''
            % (new_consumers,)
        )
    hosts = dict.fromkeys([*producers, *consumers, *(host for host in new_consumers or () if host in hostvars)])
    reader = Inventory(hostvars)
    inventory = {host: reader.values(host, VARIABLES) for host in hosts}
    plan = change.plan_change(inventory, producers, consumers, partitions, new_consumers)
    if plan.problems:
        return {"problems": plan.problems, "lines": [], "page": "", "moving_hosts": [], "moving_partitions": []}
    return {
        "problems": [],
        "lines": change.as_text(plan),
        "page": as_page(plan),
        "moving_hosts": plan.moving_hosts,
        "moving_partitions": [
            {"group": group, "partition": number, "now": now, "then": then}
            for group, number, now, then in plan.moving_partitions
        ],
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"plan_change": plan_change}
