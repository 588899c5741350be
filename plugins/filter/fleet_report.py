# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter fleet_report."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_report
short_description: A fleet's state as lines that people read, and what is wrong with it
version_added: 0.2.0
author: The logfleet developers (@logfleet)
description:
  - Makes tables of what M(logfleet.shipper.fleet_state) returned, of partitions, silent hosts, hosts that are not in
    the inventory, and holes.
options:
  _input:
    description: What the module returned from the broker, asked with all hosts that should ship.
    type: dict
    required: true
  archives:
    description: What the module returned on each archive host, by the host's name.
    type: dict
    default: {}
  silent_after:
    description: What the module was given.
    type: str
    default: 1h
"""

EXAMPLES = r"""
- name: Print it
  ansible.builtin.debug:
    msg: "{{ (fleet | logfleet.shipper.fleet_report).lines }}"
"""

RETURN = r"""
_value:
  description: The report.
  type: dict
  contains:
    lines:
      description: What is to be printed.
      type: list
      elements: str
    problems:
      description: What is wrong, one sentence each.
      type: list
      elements: str
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.logfleet.shipper.plugins.module_utils.fleet import duration
from ansible_collections.logfleet.shipper.shipper_runtime.report import report


def fleet_report(state: Any, archives: Any = None, silent_after: str = "1h") -> dict[str, Any]:
    """The report. Raises AnsibleFilterError."""
    if not isinstance(state, Mapping) or "partitions" not in state:
        raise AnsibleFilterError("fleet_report: this is nothing that the module fleet_state returned")
    try:
        seconds = duration(silent_after)
    except ValueError as error:
        raise AnsibleFilterError("fleet_report: silent_after=%s: %s" % (silent_after, error)) from error
    return asdict(report(state, archives or {}, silent_after, seconds))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"fleet_report": fleet_report}
