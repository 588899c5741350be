# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from .settings import FleetSettings


async def run(settings: FleetSettings, *, hosts: bool, as_json: bool) -> None:
    raise NotImplementedError
