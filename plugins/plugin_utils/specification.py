# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The variables that the roles of this collection document."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.logfleet.shipper.shipper_runtime.fleet import PREFIXES


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
