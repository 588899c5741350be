# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter fnv_partition."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fnv_partition
short_description: The partition that a host publishes to
version_added: 0.1.0
author: The logfleet developers (@logfleet)
description:
  - Computes a host's partition as the program on the hosts does, with the same code.
  - It is the 32 bit FNV-1a hash of the whole name modulo the number of partitions, which is also what nats-server's
    subject mapping C({{partition(N\)}}) computes.
positional: partitions
options:
  _input:
    description: The host's name, 1 to 253 ASCII letters, digits, V(-), V(_) and V(.), without empty labels.
    type: str
    required: true
  partitions:
    description: How many partitions the fleet has. V(0) stands for none, and gives partition 0.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Print the partition of this host
  ansible.builtin.debug:
    msg: "{{ inventory_hostname | logfleet.shipper.fnv_partition(shipper_partitions) }}"
    # 5 for web1.example.net and 10 partitions
"""

RETURN = r"""
_value:
  description: The partition, from 0 to one less than O(partitions).
  type: int
"""

from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.shipper_runtime.partition import is_host, partition


def fnv_partition(host: Any, partitions: Any) -> int:
    """The partition of a host. Raises AnsibleFilterError."""
    if not isinstance(host, str):
        raise AnsibleFilterError("fnv_partition: %r is not a host name: use a string" % (host,))
    if not is_host(host):
        raise AnsibleFilterError(
            "fnv_partition: %r cannot be part of a subject: use 1 to 253 ASCII letters, digits, - _ and ., "
            "without empty labels" % str(host)
        )
    if isinstance(partitions, bool) or not isinstance(partitions, int) or partitions < 0:
        raise AnsibleFilterError(
            "fnv_partition: %r is not a number of partitions: use a whole number, 0 or more" % (partitions,)
        )
    return partition(host, partitions)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"fnv_partition": fnv_partition}
