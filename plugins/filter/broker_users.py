# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter broker_users."""

from __future__ import annotations

DOCUMENTATION = r"""
name: broker_users
short_description: Who may connect to the brokers, and what they may do
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Computes from the inventory what each host needs, and nothing more, whether a run is limited to some hosts or not.
  - A host that ships and archives may do both. The operator's commands have the identity C(shipper-admin).
  - Without C(shipper_auth) there are no users, and everybody may do everything.
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
    description: The inventory names of all hosts that archive.
    type: list
    elements: str
    default: []
  partitions:
    description: The number of partitions, for a fleet whose inventory does not say it.
    type: int
    default: 0
  owners:
    description:
      - Who has which partition at present, as C(shipper status --json) says it.
      - An archive host that is to give a partition away may still release it then. Otherwise the next one waits for
        ever.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Print the names of all users
  ansible.builtin.debug:
    msg: "{{ hostvars | logfleet.shipper.broker_users(producers=groups.web, consumers=groups.archive)
             | map(attribute='name') }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The users.
  type: list
  elements: dict
  contains:
    name:
      description: The user's name, which is C(shipper_identity).
      type: str
    account:
      description: The account of nats-server that the user is in.
      type: str
    password:
      description: The password, with C(shipper_auth=password) alone.
      type: str
    publish:
      description: The subjects that the user may publish to.
      type: list
      elements: str
    subscribe:
      description: The subjects that the user may subscribe to.
      type: list
      elements: str
"""

from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.plugin_utils.inventory import Inventory
from ansible_collections.logfleet.shipper.shipper_runtime import fleet, identities


def broker_users(
    hostvars: Any, producers: Any = (), consumers: Any = (), partitions: Any = 0, owners: Any = ()
) -> list[dict[str, Any]]:
    """The users of a fleet's brokers. Raises AnsibleFilterError."""
    members = list(dict.fromkeys([*producers, *consumers]))
    missing = [host for host in members if host not in hostvars]
    if missing:
        raise AnsibleFilterError("broker_users: the inventory has no host %s" % ", ".join(missing))
    reader = Inventory(hostvars)
    names = tuple(dict.fromkeys((*fleet.VARIABLES, *identities.ALL_VARIABLES)))
    inventory = {host: reader.values(host, names) for host in members}
    plan = fleet.plan_fleet(inventory, producers, consumers or None, partitions)
    if plan.problems:
        raise AnsibleFilterError("broker_users: %s" % ". ".join(plan.problems))
    try:
        return identities.broker_users(inventory, producers, plan.read_partitions, plan.partitions, owners)
    except identities.IdentityProblem as error:
        raise AnsibleFilterError("broker_users: %s" % error) from None


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"broker_users": broker_users}
