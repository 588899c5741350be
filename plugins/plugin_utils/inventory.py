# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Variables of hosts, without having all of them templated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def raw_variables(hostvars: Any, host: str) -> Mapping[str, Any]:
    """The variables as they are written: to template all of them would take minutes for 3,000 hosts."""
    raw_get = getattr(hostvars, "raw_get", None)
    return hostvars[host] if raw_get is None else raw_get(host)


def values(hostvars: Any, host: str, variables: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The values of those of names that a host has."""
    return {name: _value(hostvars, host, name, variables[name]) for name in names if name in variables}


def _value(hostvars: Any, host: str, name: str, raw: Any) -> Any:
    return hostvars[host][name] if "{" in str(raw) else raw
