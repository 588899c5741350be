# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a benchmark leaves what it found: docs/performance/NAME.json, and NAME.svg beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from harness import ROOT

PLACE = ROOT / "docs" / "performance"


def save(name: str, document: Mapping[str, object], picture: str = "") -> None:
    """The figures, and a chart of them if there is one."""
    PLACE.mkdir(exist_ok=True)
    (PLACE / (name + ".json")).write_text(json.dumps(document, indent=2) + "\n")
    if picture:
        (PLACE / (name + ".svg")).write_text(picture)
