# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The variables of many hosts, as filters get them in Ansible's hostvars."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_REFERENCE = re.compile(r"\{\{ *([a-zA-Z_]\w*) *\}\}\Z", re.ASCII)
_REFERENCES_MOST = 5


class Inventory:
    """Reads certain variables of hosts. To template all that a host has would take minutes for 3,000 hosts."""

    def __init__(self, hostvars: Any) -> None:
        self._hostvars = hostvars
        # What a vault has encrypted is one object for all hosts, and is decrypted each time that it is looked at.
        self._decrypted: dict[int, tuple[Any, str]] = {}

    def raw(self, host: str) -> Mapping[str, Any]:
        """All variables of a host, as they are written."""
        raw_get = getattr(self._hostvars, "raw_get", None)
        variables: Mapping[str, Any] = self._hostvars[host] if raw_get is None else raw_get(host)
        return variables

    def values(self, host: str, names: Iterable[str], raw: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Those of these variables that a host has."""
        variables = self.raw(host) if raw is None else raw
        return {name: self._value(host, name, variables) for name in names if name in variables}

    def settled(self, names: Iterable[str], raw: Mapping[str, Any]) -> dict[str, Any]:
        """Those of these variables that a host has, of its raw ones, and that are no templates: what makes one may be
        there only in a task."""
        found = {}
        for name in names:
            if name in raw:
                value, text = self._followed(name, raw)
                if "{{" not in text and "{%" not in text:
                    found[name] = _plain(value, text)
        return found

    def written(self, names: Iterable[str], raw: Mapping[str, Any]) -> dict[str, Any]:
        """Those of these variables that are no templates, of a host's raw ones."""
        return {name: raw[name] for name in names if name in raw and "{" not in str(raw[name])}

    def _value(self, host: str, name: str, variables: Mapping[str, Any]) -> Any:
        raw, text = self._followed(name, variables)
        if "{" in text:
            return self._hostvars[host][name]
        return _plain(raw, text)

    def _followed(self, name: str, variables: Mapping[str, Any]) -> tuple[Any, str]:
        """What only names another variable, such as one in a vault, is that one."""
        raw, text = self._text(variables[name])
        for _turn in range(_REFERENCES_MOST):
            match = _REFERENCE.match(text)
            if match is None or match.group(1) not in variables:
                break
            raw, text = self._text(variables[match.group(1)])
        return raw, text

    def _text(self, raw: Any) -> tuple[Any, str]:
        known = self._decrypted.get(id(raw))
        if known is None:
            # The object is kept, so that its id is not used again.
            known = self._decrypted[id(raw)] = (raw, str(raw))
        return known


def _plain(raw: Any, text: str) -> Any:
    return raw if raw is None or isinstance(raw, (bool, int, float, list, tuple, dict)) else text
