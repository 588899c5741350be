# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter broker_file_store."""

from __future__ import annotations

DOCUMENTATION = r"""
name: broker_file_store
short_description: How many bytes a broker may store
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Takes what an operator gave, or computes the broker's share of all streams at their limits, with a quarter on top.
options:
  _input:
    description: A size such as V(200GiB), or nothing.
    type: str
    required: true
  partitions:
    description: The number of partitions, each of which has a stream.
    type: int
    required: true
  max_bytes:
    description: What each stream may hold, such as V(1GiB).
    type: str
    required: true
  replicas:
    description: On how many brokers each stream is kept.
    type: int
    required: true
  brokers:
    description: How many brokers there are.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Print how much each of three brokers may store
  ansible.builtin.debug:
    msg: "{{ '' | logfleet.shipper.broker_file_store(partitions=20, max_bytes='10GiB', replicas=3, brokers=3) }}"
"""

RETURN = r"""
_value:
  description: Bytes.
  type: int
"""

from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.shipper_runtime.brokerplan import file_store
from ansible_collections.logfleet.shipper.shipper_runtime.errors import SettingError


def broker_file_store(given: Any, partitions: Any, max_bytes: Any, replicas: Any, brokers: Any) -> int:
    """Bytes for nats-server's max_file_store. Raises AnsibleFilterError."""
    try:
        return file_store(str(given), int(partitions), str(max_bytes), int(replicas), int(brokers))
    except (SettingError, ValueError) as error:
        raise AnsibleFilterError("broker_file_store: %s" % error) from None


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"broker_file_store": broker_file_store}
