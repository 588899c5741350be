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
    group reads, names that cannot be part of a subject or that two hosts have, and variables that are misspelt or
    have a value that is none of their choices, no number or no boolean.
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
  brokers:
    description: The inventory names of all hosts that run a broker. Only their variables are looked at.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
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
  told:
    description:
      - Whether the roles have no variables but the inventory's, so that what they need and is not there is named.
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
      description: The hosts that ship, as they were given; none where something is wrong.
      type: list
      elements: str
    hostnames:
      description: The name that each producer ships as.
      type: dict
    problems:
      description: What is wrong, one sentence each.
      type: list
      elements: str
    read_partitions:
      description: The partitions of each consumer; none where something is wrong.
      type: dict
"""

from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.plugin_utils.inventory import Inventory
from ansible_collections.logfleet.shipper.plugins.plugin_utils.specification import Slips
from ansible_collections.logfleet.shipper.shipper_runtime.fleet import (
    VARIABLES,
    plan_fleet,
    unset,
)
from ansible_collections.logfleet.shipper.shipper_runtime.identities import hostname


def fleet_plan(
    hostvars: Any,
    producers: Any = (),
    consumers: Any = None,
    partitions: Any = 0,
    names: Any = (),
    complete: bool = True,
    limited: bool = False,
    brokers: Any = (),
    told: bool = False,
) -> dict[str, Any]:
    """The plan of a fleet. Raises AnsibleFilterError."""
    members = list(dict.fromkeys([*producers, *(consumers or ()), *brokers]))
    missing = [host for host in members if host not in hostvars]
    if missing:
        raise AnsibleFilterError("fleet_plan: the inventory has no host %s" % ", ".join(missing))
    inventory, written = {}, {}
    reader = Inventory(hostvars)
    slips = Slips(reader, names)
    for host in members if complete else hostvars:
        variables = reader.raw(host)
        slips.look(host, variables)
        written[host] = variables
        inventory[host] = reader.values(host, VARIABLES, variables)
    plan = plan_fleet(inventory, producers, consumers, partitions, limited, brokers)
    problems = slips.told() + plan.problems
    if told:
        problems += unset(written, {"producer": producers, "consumer": consumers or ()}, names)
    return {
        "partitions": plan.partitions,
        # Of a fleet that cannot work nobody may take the plan for made.
        "producers": [] if problems else list(producers),
        "hostnames": {host: hostname(inventory[host], host) for host in producers},
        "problems": problems,
        "read_partitions": {} if problems else plan.read_partitions,
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"fleet_plan": fleet_plan}
