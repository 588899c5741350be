# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter nats_hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: nats_hosts
short_description: The hosts that a NATS URL names
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - The names and addresses that clients connect to, which a broker's certificate must hold.
options:
  _input:
    description: The servers, separated by commas, as in C(shipper_nats_url).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Print a, b.example.net
  ansible.builtin.debug:
    msg: "{{ 'tls://a:4222,b.example.net' | logfleet.shipper.nats_hosts | join(', ') }}"
"""

RETURN = r"""
_value:
  description: Each host once, without ports.
  type: list
  elements: str
"""

from typing import Any, Callable
from urllib.parse import urlsplit

from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.shipper_runtime.errors import SettingError
from ansible_collections.logfleet.shipper.shipper_runtime.servers import parse_servers


def nats_hosts(url: Any) -> list[str]:
    """The hosts of a URL. Raises AnsibleFilterError."""
    if not isinstance(url, str):
        raise AnsibleFilterError("nats_hosts: %r is no text: write the servers, separated by commas" % (url,))
    try:
        servers = parse_servers(url, "shipper_nats_url")
    except SettingError as error:
        raise AnsibleFilterError("nats_hosts: %s" % error) from None
    return list(dict.fromkeys(str(urlsplit(server.url).hostname) for server in servers))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"nats_hosts": nats_hosts}
