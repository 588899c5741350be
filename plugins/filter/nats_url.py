# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter nats_url."""

from __future__ import annotations

DOCUMENTATION = r"""
name: nats_url
short_description: NATS servers with a user and a password
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Puts a user and a password into each URL of a list that is separated by commas.
positional: user, password
options:
  _input:
    description: The servers. None may hold a user or a token already, where O(user) is set.
    type: str
    required: true
  user:
    description: The user. Empty for none.
    type: str
    default: ""
  password:
    description: The password.
    type: str
    default: ""
  tls:
    description: Whether connections are to be TLS. Then each scheme becomes C(tls://); otherwise it stays.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Print a URL
  ansible.builtin.debug:
    msg: "{{ 'nats://b1,nats://b2' | logfleet.shipper.nats_url('web1', 'word', tls=true) }}"
    # tls://web1:word@b1,tls://web1:word@b2
"""

RETURN = r"""
_value:
  description: The servers, separated by commas.
  type: str
"""

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.shipper_runtime.errors import SettingError
from ansible_collections.logfleet.shipper.shipper_runtime.servers import with_credentials


def nats_url(servers: Any, user: Any = "", password: Any = "", tls: Any = False) -> str:
    """The servers with user and password. Raises AnsibleFilterError, which holds no secret."""
    if servers is None or isinstance(servers, (bool, int, float, list, tuple, Mapping)):
        raise AnsibleFilterError("nats_url: the servers are no text: use URLs, separated by commas")
    try:
        return with_credentials(str(servers), str(user), str(password), bool(tls))
    except SettingError as error:
        raise AnsibleFilterError("nats_url: %s" % error) from None


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"nats_url": nats_url}
