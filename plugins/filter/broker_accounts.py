# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter broker_accounts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: broker_accounts
short_description: Who may connect to the brokers, as nats-server's configuration
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Writes the accounts, and in them the users with their permissions, as nats-server reads them.
  - The text holds the users' passwords.
options:
  _input:
    description: The users, as the filter P(logfleet.shipper.broker_users#filter) makes them.
    type: list
    elements: dict
    required: true
  subjects:
    description: What the fleet's subjects begin with.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Write the accounts of a fleet in which everybody may do everything
  ansible.builtin.copy:
    content: "{{ [] | logfleet.shipper.broker_accounts(['shipper']) }}"
    dest: /etc/shipper-broker/users.conf
    mode: "0640"
"""

RETURN = r"""
_value:
  description: The text of a file.
  type: str
"""

from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.shipper_runtime.permissions import accounts


def broker_accounts(users: Any, subjects: Any) -> str:
    """nats-server's configuration of these users. Raises AnsibleFilterError."""
    try:
        return accounts(users, subjects)
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError("broker_accounts: a user lacks %s" % error) from None


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"broker_accounts": broker_accounts}
