# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter misspelt."""

from __future__ import annotations

DOCUMENTATION = r"""
name: misspelt
short_description: What is wrong with the variables of hosts, as far as each can be told alone
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Compares names with the variables that the roles document. Names that are near to none of them are left alone.
  - Values that a variable cannot have are named too.
options:
  _input:
    description: Ansible's C(hostvars).
    type: dict
    required: true
  hosts:
    description: The hosts to look at.
    type: list
    elements: str
    required: true
  names:
    description: More names of variables, such as those given on the command line.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Stop at a misspelt variable
  ansible.builtin.assert:
    that: hostvars | logfleet.shipper.misspelt(hosts=ansible_play_hosts_all) | length == 0
"""

RETURN = r"""
_value:
  description: A sentence for each such name and value.
  type: list
  elements: str
  sample: ["producer_flies is not a variable of this collection: write producer_files"]
"""

from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.plugin_utils.inventory import Inventory
from ansible_collections.logfleet.shipper.plugins.plugin_utils.specification import Slips


def misspelt(hostvars: Any, hosts: Any, names: Any = ()) -> list[str]:
    """The sentences. Raises AnsibleFilterError."""
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise AnsibleFilterError("misspelt: %r is no list of names: use one" % (names,))
    reader = Inventory(hostvars)
    slips = Slips(reader, names)
    for host in hosts:
        slips.look(host, reader.raw(host))
    return slips.told()


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"misspelt": misspelt}
