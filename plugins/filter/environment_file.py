# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter environment_file."""

from __future__ import annotations

DOCUMENTATION = r"""
name: environment_file
short_description: Variables as the text of an environment file
version_added: 0.1.0
author: The logfleet developers (@logfleet)
description:
  - Writes variables so that systemd's C(EnvironmentFile=) and the program's C(--env-file) read the same values,
    whatever quotes, backslashes, dollar and percent signs they hold.
options:
  _input:
    description:
      - The variables. One that is null or an empty string is left out.
      - A value that cannot be written on one line is refused.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Write an environment file
  ansible.builtin.copy:
    content: "{{ {'SHIPPER_SUBJECT': 'shipper', 'SHIPPER_PARTITIONS': 10} | logfleet.shipper.environment_file }}"
    dest: /etc/shipper/example.env
    mode: "0640"
"""

RETURN = r"""
_value:
  description: One line for each variable, in the order of the dictionary.
  type: str
"""

import re
from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# systemd drops a variable whose value holds a control character or is not UTF-8.
_UNWRITABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_SPECIAL = re.compile(r'(["\\$`])')


def environment_file(variables: Any) -> str:
    """The text of an environment file. Raises AnsibleFilterError."""
    if not isinstance(variables, Mapping):
        raise AnsibleFilterError("environment_file: %r is not a dictionary: use names and values" % (variables,))
    return "".join(_line(name, value) for name, value in variables.items() if value is not None and value != "")


def _line(name: Any, value: Any) -> str:
    if not isinstance(name, str) or _NAME.match(name) is None:
        raise AnsibleFilterError("environment_file: %r is not a variable's name: use letters, digits and _" % (name,))
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise AnsibleFilterError("environment_file: %s is neither text nor a whole number: use one of them" % name)
    text = str(value)
    if _UNWRITABLE.search(text) is not None:
        # The value may be a secret.
        raise AnsibleFilterError(
            "environment_file: %s holds a line break or another control character: take it out" % name
        )
    return '%s="%s"\n' % (name, _SPECIAL.sub(r"\\\1", text))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"environment_file": environment_file}
