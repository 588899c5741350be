# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The variables that the roles of this collection document, and what hosts make of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.logfleet.shipper.plugins.plugin_utils.inventory import Inventory
from ansible_collections.logfleet.shipper.shipper_runtime.fleet import (
    PREFIXES,
    SERIAL,
    VARIABLES,
    misspelt,
    wrong_values,
)
from ansible_collections.logfleet.shipper.shipper_runtime.values import NAMES as PARSED


@cache
def documented() -> dict[str, dict[str, Any]]:
    """What is specified of each variable of an inventory: its type, choices and the like."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(Path(__file__).parents[2].glob("roles/*/meta/argument_specs.yml")):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            for name, option in entry.get("options", {}).items():
                if name.startswith(PREFIXES):
                    found[name] = option
    return found


def _narrow_options() -> dict[str, dict[str, Any]]:
    """Those of which there are values that they cannot have, as can be told without the rest of the inventory."""
    return {
        name: option
        for name, option in documented().items()
        if name == SERIAL or (name not in VARIABLES and ("choices" in option or option.get("type") in ("int", "bool")))
    }


def _parsed_options() -> dict[str, dict[str, Any]]:
    """Those that the program parses."""
    return {name: option for name, option in documented().items() if name in PARSED}


def _list_options() -> dict[str, dict[str, Any]]:
    """Those that are lists. A template that makes one may need what only a task has, so these are looked at as they are
    written."""
    return {name: option for name, option in documented().items() if option.get("type") == "list" and name != SERIAL}


class Slips:
    """What is wrong with the variables of hosts, as far as each can be told alone. names are used by all of them."""

    def __init__(self, reader: Inventory, names: Iterable[str]) -> None:
        self._reader = reader
        self._names = set(names)
        self._narrow, self._lists, self._parsed = _narrow_options(), _list_options(), _parsed_options()
        self._values: dict[str, dict[str, Any]] = {}

    def look(self, host: str, variables: Mapping[str, Any]) -> None:
        """Look at a host's variables, as Inventory.raw() has them."""
        self._names.update(variables)
        values = self._reader.values(host, self._narrow, variables)
        settled = self._reader.settled(self._parsed, variables)
        self._values[host] = {**settled, **values, **self._reader.written(self._lists, variables)}

    def told(self) -> list[str]:
        """A sentence for each slip."""
        options = {**self._parsed, **self._narrow, **self._lists}
        return misspelt(self._names, documented()) + wrong_values(self._values, options)
