# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter identity_password."""

from __future__ import annotations

DOCUMENTATION = r"""
name: identity_password
short_description: The password of a host
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Derives an identity's password from the fleet's secret. It is 43 characters long, and nothing need be stored.
positional: identity, generation
options:
  _input:
    description: The secret, 32 characters or more.
    type: str
    required: true
  identity:
    description: The host's name to the brokers.
    type: str
    required: true
  generation:
    description: A higher one gives another password.
    type: int
    default: 1
"""

EXAMPLES = r"""
- name: Print a password
  ansible.builtin.debug:
    msg: "{{ shipper_secret | logfleet.shipper.identity_password('web1.example.net') }}"
"""

RETURN = r"""
_value:
  description: The password, of letters, digits, V(-) and V(_).
  type: str
"""

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.shipper_runtime.identities import SECRET_LEAST
from ansible_collections.logfleet.shipper.shipper_runtime.permissions import password


def identity_password(secret: Any, identity: Any, generation: Any = 1) -> str:
    """The password of an identity. Raises AnsibleFilterError, which does not hold the secret."""
    if secret is None or isinstance(secret, (bool, int, float, list, tuple, Mapping)):
        raise AnsibleFilterError("identity_password: the secret is no text: use a string from a vault")
    # A vault's value is no str before ansible-core 2.19.
    secret = str(secret)
    if len(secret) < SECRET_LEAST:
        raise AnsibleFilterError(
            "identity_password: the secret is shorter than %d characters: use a longer one" % SECRET_LEAST
        )
    if not isinstance(identity, str) or not identity:
        raise AnsibleFilterError("identity_password: %r is not the name of an identity: use a string" % (identity,))
    if isinstance(generation, bool) or not str(generation).isdigit() or int(generation) < 1:
        raise AnsibleFilterError(
            "identity_password: %r is not a generation: use a whole number, 1 or more" % (generation,)
        )
    return password(secret, str(identity), int(generation))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"identity_password": identity_password}
