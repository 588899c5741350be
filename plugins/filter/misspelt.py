# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter misspelt."""

from __future__ import annotations

DOCUMENTATION = r"""
name: misspelt
short_description: Which names are nearly variables of this collection, and are none
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Compares names with the variables that the roles document. Names that are near to none of them are left alone.
options:
  _input:
    description: Names of variables.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Stop at a misspelt variable
  ansible.builtin.assert:
    that: query('ansible.builtin.varnames', '^[a-z]+_') | logfleet.shipper.misspelt | length == 0
"""

RETURN = r"""
_value:
  description: A sentence for each such name.
  type: list
  elements: str
  sample: ["producer_flies is not a variable of this collection: write producer_files"]
"""

from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.plugin_utils.specification import documented
from ansible_collections.logfleet.shipper.shipper_runtime import fleet


def misspelt(names: Any) -> list[str]:
    """The sentences. Raises AnsibleFilterError."""
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise AnsibleFilterError("misspelt: %r is no list of names: use one" % (names,))
    return fleet.misspelt(names, documented())


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"misspelt": misspelt}
