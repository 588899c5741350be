# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter fleet_plan."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_plan
short_description: Who reads what in a fleet, and what is wrong with it
version_added: 0.1.0
author: The logfleet developers (@logfleet)
description:
  - Looks at the inventory variables of all hosts at once, whether a run is limited to some of them or not.
  - Finds hosts that disagree about the number of partitions, partitions that nobody or more than one consumer of a
    group reads, names that cannot be part of a subject or that two hosts have, and variables that are misspelt.
  - Finds hosts that the brokers could not tell apart, and a C(shipper_secret) that is none, without printing it.
options:
  _input:
    description: Ansible's C(hostvars).
    type: dict
    required: true
  producers:
    description: The inventory names of all hosts that ship.
    type: list
    elements: str
    default: []
  consumers:
    description:
      - The inventory names of all hosts that archive.
      - Without it nobody looks at who reads what.
    type: list
    elements: str
  partitions:
    description: The number of partitions, for a fleet whose inventory does not say it.
    type: int
    default: 0
  names:
    description: Further names of variables to look at, such as those that a playbook sets.
    type: list
    elements: str
    default: []
  complete:
    description:
      - Whether O(producers) and O(consumers) are the whole fleet.
      - Otherwise every host of the inventory is asked for the number of partitions.
    type: bool
    default: true
  limited:
    description: Whether there may be more consumers than O(consumers).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Print what is wrong
  ansible.builtin.debug:
    msg: "{{ (hostvars | logfleet.shipper.fleet_plan(producers=groups.web, consumers=groups.archive)).problems }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The plan.
  type: dict
  contains:
    partitions:
      description: The number of partitions.
      type: int
    producers:
      description: The hosts that ship, as they were given.
      type: list
      elements: str
    problems:
      description: What is wrong, one sentence each.
      type: list
      elements: str
    read_partitions:
      description: The partitions of each consumer.
      type: dict
"""

from functools import cache
from pathlib import Path
from typing import Any, Callable

import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.plugin_utils.inventory import Inventory
from ansible_collections.logfleet.shipper.shipper_runtime.fleet import (
    PREFIXES,
    VARIABLES,
    misspelt,
    plan_fleet,
)


def fleet_plan(
    hostvars: Any,
    producers: Any = (),
    consumers: Any = None,
    partitions: Any = 0,
    names: Any = (),
    complete: bool = True,
    limited: bool = False,
) -> dict[str, Any]:
    """The plan of a fleet. Raises AnsibleFilterError."""
    members = list(dict.fromkeys([*producers, *(consumers or ())]))
    missing = [host for host in members if host not in hostvars]
    if missing:
        raise AnsibleFilterError("fleet_plan: the inventory has no host %s" % ", ".join(missing))
    inventory = {}
    reader = Inventory(hostvars)
    used = set(names)
    for host in members if complete else hostvars:
        variables = reader.raw(host)
        used.update(variables)
        inventory[host] = reader.values(host, VARIABLES, variables)
    plan = plan_fleet(inventory, producers, consumers, partitions, limited)
    return {
        "partitions": plan.partitions,
        "producers": list(producers),
        "problems": misspelt(used, _known()) + plan.problems,
        "read_partitions": plan.read_partitions,
    }


@cache
def _known() -> frozenset[str]:
    """The variables that the roles document."""
    names: set[str] = set()
    for path in sorted(Path(__file__).parents[2].glob("roles/*/meta/argument_specs.yml")):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            names.update(name for name in entry.get("options", {}) if name.startswith(PREFIXES))
    return frozenset(names)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"fleet_plan": fleet_plan}
