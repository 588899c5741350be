# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from .settings import FleetSettings, StreamLimits


async def run(settings: FleetSettings, limits: StreamLimits, *, force: bool, dry_run: bool, as_json: bool) -> None:
    raise NotImplementedError


async def forget(settings: FleetSettings, group: str) -> None:
    raise NotImplementedError
