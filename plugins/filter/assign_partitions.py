# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter assign_partitions."""

from __future__ import annotations

DOCUMENTATION = r"""
name: assign_partitions
short_description: Which consumer reads which partitions
version_added: 0.1.0
author: The logfleet developers (@logfleet)
description:
  - Gives every partition to one of the hosts. The hosts' numbers of partitions are within one of each other.
  - The result depends on the set of hosts alone, not on their order or on an earlier result.
  - A host that joins or leaves moves few partitions besides its own share, where there are many partitions for each
    host. Plan with at least ten for each.
positional: partitions
options:
  _input:
    description: The names of the hosts that read. One that is named twice counts once.
    type: list
    elements: str
    required: true
  partitions:
    description: How many partitions the fleet has. V(0) stands for none, which leaves one to read, partition 0.
    type: int
    required: true
  pins:
    description:
      - Partitions that certain hosts are to read, a list for each of these hosts.
      - They count as load. A host with more than its share gets no others, and the other hosts share the rest evenly.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Print who reads what
  ansible.builtin.debug:
    msg: "{{ ['a1', 'a2'] | logfleet.shipper.assign_partitions(20, pins={'a2': [3, 4]}) }}"
"""

RETURN = r"""
_value:
  description: The partitions of each host, in ascending order. A host for which there is none has an empty list.
  type: dict
  sample: {"a1": [0, 2], "a2": [1, 3]}
"""

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.shipper_runtime.assignment import AssignmentError, assign


def assign_partitions(hosts: Any, partitions: Any, pins: Any = None) -> dict[str, list[int]]:
    """The partitions of each host. Raises AnsibleFilterError."""
    if not isinstance(hosts, (list, tuple)):
        raise AnsibleFilterError("assign_partitions: %r is not a list: use a list of host names" % (hosts,))
    for host in hosts:
        if not isinstance(host, str) or not host:
            raise AnsibleFilterError("assign_partitions: %r is not a host name: use a string" % (host,))
    if not _is_count(partitions):
        raise AnsibleFilterError(
            "assign_partitions: %r is not a number of partitions: use a whole number, 0 or more" % (partitions,)
        )
    pins = {} if pins is None else pins
    if not isinstance(pins, Mapping):
        raise AnsibleFilterError(
            "assign_partitions: pins=%r is not a dictionary: use a list of partitions for each host" % (pins,)
        )
    for host, numbers in pins.items():
        if not isinstance(numbers, (list, tuple)) or not all(_is_count(number) for number in numbers):
            raise AnsibleFilterError(
                "assign_partitions: pins of %s are %r: use a list of whole numbers" % (host, numbers)
            )
    try:
        return assign(hosts, partitions, pins)
    except AssignmentError as error:
        raise AnsibleFilterError("assign_partitions: %s" % error) from None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"assign_partitions": assign_partitions}
